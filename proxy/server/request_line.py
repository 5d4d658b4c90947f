"""The first line of a request (RFC 9112, section 3), read strictly."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from proxy.errors import BadRequest

_PATH = rb"/[\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e]*+"  # visible ASCII without # ? \
_QUERY = rb"[\x21\x22\x24-\x5b\x5d-\x7e]*+"  # the same with ?
_HOST = rb"(?:[A-Za-z0-9\-._~%!$&'()*+;=]*+|\[[0-9A-Fa-f:.]++\])(?::[0-9]{0,5})?"

_LINE = re.compile(
    rb"([A-Z-]{1,24}) (?:(?i:https?)://(?=[^/?: ])(" + _HOST + rb"))?"
    rb"(" + _PATH + rb")?(?:\?(" + _QUERY + rb"))? HTTP/1\.([01])"
)  # fmt: skip
_ASTERISK_LINE = re.compile(rb"(OPTIONS)() (\*)() HTTP/1\.([01])")
_HOST_VALUE = re.compile(_HOST)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class RequestLine(NamedTuple):
    method: str
    path: str
    """Percent-decoded, without the query; `*` for the asterisk form."""
    query: bytes
    http_1_1: bool
    authority: bytes | None
    """The host in a target of the absolute form."""


@lru_cache(maxsize=256)
def parse_request_line(line: bytes) -> RequestLine:
    """What `line`, without its CRLF, says. Never blocks. Errors: `BadRequest`.

    Remembered, because the lines of a service's clients hardly differ.
    """
    match = _LINE.fullmatch(line) or _ASTERISK_LINE.fullmatch(line)
    if match is None or not (match[2] or match[3]):
        raise BadRequest("The request line is malformed.")
    method, authority, path, query, minor = match.groups()
    text = path.decode("ascii") if path else "/"
    if "%" in text:
        text = _decoded(text)
    return RequestLine(method.decode("ascii"), text, query or b"", minor == b"1", authority or None)


def _decoded(path: str) -> str:
    if _BAD_ESCAPE.search(path):
        raise BadRequest("The request path has a malformed percent-encoding.")
    try:
        path = unquote(path, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("The request path is not UTF-8.") from error
    if _CONTROL.search(path):
        raise BadRequest("The request path has a control character.")
    return path


@lru_cache(maxsize=256)
def is_host(value: bytes) -> bool:
    """Whether `value` is a host with an optional port (RFC 9110, section 7.2), or empty."""
    return _HOST_VALUE.fullmatch(value) is not None
