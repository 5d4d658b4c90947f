"""An upstream's answer that is no success, read so that it can be judged and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.exchange.decoding import DecodedResponse, content_coding, decodable
from proxy.exchange.ports import UpstreamFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.exchange.ports import Headers, UpstreamResponse

MAX_ERROR_BYTES: Final = 1024 * 1024
"""An error answer is kept whole, to be judged and perhaps relayed; none is near this size."""


class ErrorAnswer(NamedTuple):
    """`headers` and `body` as a client may see them, once they are masked; in plain text."""

    status: int
    headers: Headers
    body: bytes


async def read_error(response: UpstreamResponse, mask: Callable[[bytes], bytes]) -> ErrorAnswer:
    """Reads it, as far as it comes: the status and what has come of the body tell more than a
    break. `mask`: takes out what the client must not see.

    A body in a coding that can't be undone is left out: nobody could see what it quotes.
    Errors: none but cancellation.
    """
    coding = content_coding(response.headers)
    plain = DecodedResponse(response, coding) if decodable(coding) else response
    body = b""
    try:
        while len(body) < MAX_ERROR_BYTES and (piece := await plain.read_chunk()):
            body += piece
    except UpstreamFailure:
        pass
    headers = plain.headers
    if content_coding(headers):
        headers = [pair for pair in headers if pair[0] != b"content-encoding"]
        body = b""
    headers = [(name, mask(value)) for name, value in headers]
    return ErrorAnswer(response.status, headers, mask(body))
