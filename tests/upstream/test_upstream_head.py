"""What goes over the wire before the body."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.head import head, opening
from proxy.upstream.origin import Origin, Proxy

ORIGIN = Origin("http", "h", 8080)


class Upload:
    def __init__(self, length: int | None) -> None:
        self.length = length

    def rewind(self) -> None: ...

    async def read_chunk(self) -> bytes:
        return b""


def test_head_of_a_request_with_a_body() -> None:
    start = opening(ORIGIN, "POST", "/v1/x?y=z")
    headers = [(b"content-type", b"application/json"), (b"api-key", b"k")]
    assert head(start, "POST", headers, b"{}") == (
        b"POST /v1/x?y=z HTTP/1.1\r\nhost: h:8080\r\ncontent-type: application/json\r\n"
        b"api-key: k\r\ncontent-length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "body", "framing"),
    [
        ("GET", b"", b""),
        ("DELETE", b"", b""),
        ("POST", b"", b"content-length: 0\r\n"),
        ("GET", b"x", b"content-length: 1\r\n"),
        ("POST", Upload(12), b"content-length: 12\r\n"),
        ("POST", Upload(None), b"transfer-encoding: chunked\r\n"),
    ],
)
def test_framing(method: str, body: bytes | Upload, framing: bytes) -> None:
    assert head(b"S\r\n", method, [], body) == b"S\r\n" + framing + b"\r\n"


def test_plain_http_through_a_proxy_names_the_whole_address() -> None:
    proxied = Origin("http", "h", 8080, Proxy("http", "p", 3128, b"Basic abc"))
    assert opening(proxied, "GET", "/x") == (
        b"GET http://h:8080/x HTTP/1.1\r\nhost: h:8080\r\nproxy-authorization: Basic abc\r\n"
    )
    tunnelled = Origin("https", "h", 443, Proxy("http", "p", 3128, b"Basic abc"))
    assert opening(tunnelled, "GET", "/x") == b"GET /x HTTP/1.1\r\nhost: h\r\n"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET /", "/"),
        ("", "/"),
        ("GET", "/a b"),
        ("GET", "/a#b"),
        ("GET", "/\r\nx: y"),
        ("GET", ""),
    ],
)
def test_a_malformed_request_line_is_refused(method: str, target: str) -> None:
    with pytest.raises(UpstreamFailure):
        opening(ORIGIN, method, target)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b\n", b"c\r\nd", b"e\0"]), st.binary(max_size=8)))
)
def test_no_header_leaves_its_line(headers: list[tuple[bytes, bytes]]) -> None:
    if any(set(name + value) & set(b"\r\n\0") for name, value in headers):
        with pytest.raises(UpstreamFailure):
            head(b"", "GET", headers, b"")
    else:
        lines = head(b"", "GET", headers, b"").split(b"\r\n")
        assert lines == [*(b"%b: %b" % line for line in headers), b"", b""]
