"""What the head of a request says before its body is read: by what right it comes, what for, how
long it can wait, and which of its headers go on.

The requests that follow on a connection mostly repeat the first one's head. All of this depends on
the head alone, so it is found out once and kept with it (`RequestReader.terms`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proxy.exchange.headers import forwarded, header
from proxy.exchange.operations import find
from proxy.exchange.patience import patience

if TYPE_CHECKING:
    from proxy.exchange.client_keys import ClientKeys
    from proxy.exchange.operations import Target
    from proxy.exchange.patience import Patience
    from proxy.exchange.ports import Headers, RequestReader


class Terms(NamedTuple):
    """`target`: None if there is no such operation. `given_id`: the client's own id for it.
    `forwarded`: the headers for the upstream; not to be changed."""

    target: Target | None
    given_id: bytes | None
    patience: Patience
    forwarded: Headers


def read_terms(request: RequestReader, keys: ClientKeys, max_wait_s: float) -> Terms:
    """The terms of `request`, whose key is one of `keys`.

    Errors: `Unauthorized`, and `BadRequest` for a header that can't be read; neither leaves
    anything to be kept.
    """
    headers = request.headers
    keys.check(headers)
    return Terms(
        find(request.path),
        given_id(request),
        patience(headers, max_wait_s),
        forwarded(headers),
    )


def given_id(request: RequestReader) -> bytes | None:
    """The client's own id for its request, as it stands in the head."""
    return header(request.headers, b"x-request-id")
