"""Where a request is addressed: dialect, deployment, operation and API version, from its URL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl

Dialect: TypeAlias = Literal["dated", "v1", "plain"]
"""Azure's dated API, Azure's v1 API, or OpenAI's own as any compatible server speaks it."""

_GA = ("2022-12-01", "2023-05-15", "2024-02-01", "2024-06-01", "2024-10-21")
_PREVIEWS = (
    *("2022-03-01", "2022-06-01", "2023-03-15", "2023-06-01", "2023-07-01", "2023-08-01"),
    *("2023-09-01", "2023-10-01", "2023-12-01", "2024-02-15", "2024-03-01", "2024-04-01"),
    *("2024-05-01", "2024-07-01", "2024-08-01", "2024-09-01", "2024-10-01", "2024-12-01"),
    *("2025-01-01", "2025-02-01", "2025-03-01", "2025-04-01"),
)
VERSIONS = frozenset(_GA) | {f"{date}-preview" for date in _PREVIEWS}
"""learn.microsoft.com, "API version lifecycle", read 2026-11."""

DEPLOYMENT_SCOPED = frozenset(
    {
        "chat/completions",
        "completions",
        "embeddings",
        "audio/transcriptions",
        "audio/translations",
        "audio/speech",
        "images/generations",
        "images/edits",
        "moderations",
    }
)
"""What the dated API has below a deployment. Moderations are OpenAI's own; they are taken there
too, for want of a place in the real service."""

_SINCE = {"responses": "2025-03-01", "batches": "2024-07-01"}
"""The first dated version of what the dated API did not always have."""

STREAM_OPTIONS_SINCE = "2024-09-01"


@dataclass(frozen=True, slots=True)
class Address:
    """`path`: the operation and whatever follows it, such as `responses/resp_1/cancel`."""

    dialect: Dialect
    path: str
    deployment: str | None
    version: str

    @property
    def azure(self) -> bool:
        return self.dialect != "plain"

    def since(self, date: str) -> bool:
        """Whether this version of the API has what came on `date`; all undated ones do."""
        return self.dialect != "dated" or self.version[:10] >= date


@lru_cache(maxsize=4096)
def locate(path: str, query: bytes) -> Address | None:
    """The address, or None where the service has nothing (wrong path, version missing or unknown).

    Pure; the cache makes it cheap for paths that repeat, and is bounded for those that don't.
    """
    parts = path.strip("/").split("/")
    if parts[0] == "v1":
        return _undated("plain", parts[1:])
    if parts[0] != "openai":
        return None
    if parts[1:2] == ["v1"]:
        return _undated("v1", parts[2:])
    version = dict(parse_qsl(query.decode("latin-1"))).get("api-version", "")
    if version not in VERSIONS:
        return None
    return _dated(parts[1:], version)


def _undated(dialect: Dialect, parts: list[str]) -> Address | None:
    return Address(dialect, "/".join(parts), None, "v1") if all(parts) and parts else None


def _dated(parts: list[str], version: str) -> Address | None:
    deployment = None
    if parts[:1] == ["deployments"]:
        deployment, parts = (parts[1] if len(parts) > 2 else ""), parts[2:]
    path = "/".join(parts)
    scoped = path in DEPLOYMENT_SCOPED
    if not path or not all(parts) or deployment == "" or (deployment is not None and not scoped):
        return None
    if deployment is None and scoped and path != "moderations":
        return None
    if version[:10] < _SINCE.get(parts[0], ""):
        return None
    return Address("dated", path, deployment, version)
