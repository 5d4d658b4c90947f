"""Whatever the strict reader accepts, h11 reads the same way."""

from __future__ import annotations

from itertools import pairwise
from urllib.parse import unquote

import h11
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.server.chunked import ChunkedDecoder, MalformedChunks
from proxy.server.head import HEAD_END, parse_head
from proxy.server.limits import Limits

LIMITS = Limits()
NEXT_REQUEST = b"GET /next HTTP/1.1\r\nhost: next\r\n\r\n"

lines = st.sampled_from(
    [
        b"Host: x", b"host: y:80", b"Content-Length: 3", b"content-length: 4", b"Content-Length: 0",
        b"content-length: +3", b"Content-Length: 3, 3", b"content-length:3 ", b"content-length: 03",
        b"Transfer-Encoding: chunked", b"transfer-encoding: gzip, chunked", b"a: b", b"a : b",
        b" folded", b"a:\tb\t", b"A: caf\xe9", b"a: b\x00", b"a: b\rc", b"a: b\nc: d", b"a:",
        b"Connection: close", b"connection: keep-alive", b"expect: 100-continue", b"Upgrade: h2c",
        b"connection: upgrade", b"a\x0b: b", b"content_length: 5", b"x: \x80\xff", b": b", b"",
    ]
)  # fmt: skip
request_lines = st.sampled_from(
    [
        b"GET /v1/a HTTP/1.1", b"POST /v1/a?b=c HTTP/1.1", b"POST /v1/%41 HTTP/1.0",
        b"HEAD http://x/v1/a HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET  / HTTP/1.1",
        b"GET / HTTP/1.2", b"get / HTTP/1.1", b"DELETE /v1/{a}|\"b\" HTTP/1.1",
    ]
)  # fmt: skip
endings = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"])


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Requests, mostly nearly right, up to their first empty line."""
    raw = b""
    for line in [draw(request_lines), b"host: x", *draw(st.lists(lines, max_size=4))]:
        raw += line + (b"\r\n" if draw(st.integers(0, 4)) else draw(endings))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=2)) + raw[at + draw(st.integers(0, 2)) :]
    raw += b"\r\n"
    return raw[: raw.index(HEAD_END) + 4] if HEAD_END in raw else raw.rstrip(b"\r\n") + HEAD_END


@given(heads())
@example(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
@settings(max_examples=400)
def test_accepted_heads_mean_the_same_to_h11(raw: bytes):
    try:
        head = parse_head(raw, LIMITS)
    except ProxyError:
        event("refused")
        return
    event("accepted")
    body = b"3\r\nabc\r\n0\r\n\r\n" if head.chunked else b"x" * head.content_length
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(raw + body + NEXT_REQUEST)
    request = parser.next_event()
    assert isinstance(request, h11.Request)
    assert request.method == head.method.encode()
    assert request.http_version == (b"1.1" if head.http_1_1 else b"1.0")
    assert list(request.headers) == head.headers
    target = request.target.removeprefix(b"http://x")
    path, _, query = target.partition(b"?")
    assert (unquote(path.decode()), query) == (head.path, head.query)
    read = b""
    while isinstance(data := parser.next_event(), h11.Data):
        read += bytes(data.data)
    assert isinstance(data, h11.EndOfMessage)
    assert read == (b"abc" if head.chunked else body)
    assert parser.trailing_data[0] == NEXT_REQUEST, "the next request begins where we say"


good_chunks = st.sampled_from(
    [b"3\r\nabc\r\n", b"1;x=y\r\nd\r\n", b"00A\r\n0123456789\r\n", b'1;x="y z"\r\n\r\r\n']
)
odd_chunks = st.sampled_from(
    [
        b"3\nabc\n", b"3\r\nabc", b"3 \r\nabc\r\n", b"-1\r\n", b"0x1\r\na\r\n", b"\n", b"\r\n",
        b"g\r\n", b"fffffffffffffffff\r\n", b"1;\x00\r\na\r\n", b"1;a\nb\r\nc\r\n", b"0;x\r\n",
    ]
)  # fmt: skip
chunk_ends = st.sampled_from(
    [b"0\r\n\r\n", b"000\r\na: b\r\n\r\n", b"0\r\na b: c\r\n\r\n", b"0\n\n"]
)


@st.composite
def coded_bodies(draw: st.DrawFn) -> bytes:
    chunks = draw(st.lists(good_chunks, max_size=4))
    if draw(st.integers(0, 3)) == 0:
        chunks.insert(draw(st.integers(0, len(chunks))), draw(odd_chunks))
    return b"".join(chunks) + draw(chunk_ends) + draw(st.sampled_from([b"", NEXT_REQUEST]))


def decoded(coded: bytes, cuts: list[int]) -> tuple[bytes, bytes | None] | None:
    """Payload and what follows the body (None if it has no end), fed in pieces; None when it is
    malformed."""
    decoder = ChunkedDecoder()
    payload = b""
    places = sorted({0, len(coded), *(cut % (len(coded) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        try:
            payload += decoder.feed(coded[start:end])
        except MalformedChunks:
            return None
        if decoder.complete:
            return payload, decoder.rest + coded[end:]
    return payload, None


@given(coded_bodies(), st.lists(st.integers(0, 99), max_size=6))
@settings(max_examples=400)
def test_accepted_chunks_mean_the_same_to_h11(coded: bytes, cuts: list[int]):
    whole = decoded(coded, [])
    assert decoded(coded, cuts) == whole, "however it is cut"
    if whole is None or whole[1] is None:
        event("refused or incomplete")
        return
    event("complete")
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + coded)
    assert isinstance(parser.next_event(), h11.Request)
    read = b""
    while isinstance(data := parser.next_event(), h11.Data):
        read += bytes(data.data)
    assert isinstance(data, h11.EndOfMessage)
    assert (read, parser.trailing_data[0]) == whole
