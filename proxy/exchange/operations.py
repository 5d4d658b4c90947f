"""The data-plane operations, one row each. A new operation is a new row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from proxy.exchange.resources import locate

if TYPE_CHECKING:
    from proxy.exchange.resources import Place
    from proxy.exchange.sse import Ending
    from proxy.tokens.bounds import EstimateKind


@dataclass(frozen=True, slots=True)
class Operation:
    """`path`: below the address, such as `chat/completions`.

    `deployment_scoped`: Azure's dated API has it under `/deployments/{deployment}/`, and takes the
    model from there (openai-python, `lib/azure.py`, `_deployments_endpoints`). `estimate`: how
    its input tokens are counted. `stream_usage`: streams report usage when
    `stream_options.include_usage` asks for it; others report it by themselves or never. `ending`:
    what its streams end with, see `proxy.exchange.sse.Ending`. `kept`: its requests may name, and
    its answers make, what one instance keeps; see `proxy.bound`.
    """

    path: str
    deployment_scoped: bool
    body: Literal["json", "multipart"]
    estimate: EstimateKind
    stream_usage: bool = False
    ending: Ending = "close"
    kept: bool = False


OPERATIONS: Final = (
    Operation("chat/completions", True, "json", "chat", True, "choices"),
    Operation("completions", True, "json", "completions", True, "choices"),
    Operation("embeddings", True, "json", "embeddings"),
    Operation("responses", False, "json", "responses", ending="response", kept=True),
    Operation("responses/compact", False, "json", "responses", kept=True),
    Operation("images/generations", True, "json", "images"),
    Operation("images/edits", True, "multipart", "none"),
    Operation("audio/speech", True, "json", "speech"),
    Operation("audio/transcriptions", True, "multipart", "none"),
    Operation("audio/translations", True, "multipart", "none"),
    Operation("moderations", False, "json", "moderations"),
)

_BY_PATH: Final = {operation.path: operation for operation in OPERATIONS}
_DEPLOYMENTS: Final = "/openai/deployments/"
ADDRESSES: Final = ("/v1/", "/openai/v1/", "/openai/")
"""Where the operations are found. The last is what the Azure SDK uses for what is not
deployment-scoped."""

_NO_NAMES: Final = ("", ".", "..")
"""Segments that no server need take for a name."""
_FIXED: Final = {
    address + operation.path: operation for address in ADDRESSES for operation in OPERATIONS
}


class Target(NamedTuple):
    """What a path asks for. `model`: named by the path, for the deployment-scoped address.

    `models`: it is the list of models ("") or one of them (its id). `place`: something that is
    kept upstream.
    """

    operation: Operation | None = None
    model: str | None = None
    models: str | None = None
    place: Place | None = None


def is_data_plane(path: str) -> bool:
    """Whether the exchange answers for this path, even if only with 404."""
    return path.startswith(("/v1/", "/openai/"))


def find(path: str) -> Target | None:
    """The target of a percent-decoded path; None if there is no such operation.

    A path is matched as it stands: nothing is decoded a second time, no dots are resolved and no
    slashes joined. Cost: one dictionary look-up for the undecorated addresses.
    """
    operation = _FIXED.get(path)
    if operation is not None:
        return Target(operation)
    if path.startswith(_DEPLOYMENTS):
        model, _, rest = path[len(_DEPLOYMENTS) :].partition("/")
        operation = _BY_PATH.get(rest)
        return Target(operation, model=model) if operation and model not in _NO_NAMES else None
    for address in ADDRESSES:
        if path.startswith(address):
            rest = path[len(address) :]
            kind, _, model = rest.partition("/")
            if kind == "models":
                return Target(models=model)
            place = locate(rest)
            if place is not None:
                return Target(place=place)
    return None
