"""The chunked coding of requests: strict, bounded, cut anywhere."""

from __future__ import annotations

import pytest

from proxy.server.chunked import (
    LINE_BYTES_MAX,
    OVERHEAD_BYTES_MAX,
    ChunkedDecoder,
    MalformedChunks,
)

CODED = b'3\r\nabc\r\n1;name="value"\r\nd\r\nA\r\n0123456789\r\n0\r\ntrailer: x\r\n\r\n'


def test_a_whole_body():
    decoder = ChunkedDecoder()
    assert decoder.feed(CODED + b"GET /next") == b"abcd0123456789"
    assert decoder.complete
    assert decoder.rest == b"GET /next"


def test_byte_by_byte():
    decoder = ChunkedDecoder()
    payload = b""
    for index in range(len(CODED)):
        assert not decoder.complete
        payload += decoder.feed(CODED[index : index + 1])
    assert payload == b"abcd0123456789"
    assert decoder.complete
    assert decoder.rest == b""


@pytest.mark.parametrize(
    "coded",
    [
        b"3\nabc\r\n",
        b"3\r\nabc\n",
        b"3\r\nabcd\r\n",
        b"3\r\nab\r\n0\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"\r\n",
        b"+3\r\nabc\r\n",
        b"-3\r\n",
        b"0x3\r\nabc\r\n",
        b"3_0\r\n",
        b"\xd9\xa3\r\nabc\r\n",
        b"1234567890abcdef\r\n",
        b"3;a\rb\r\nabc\r\n",
        b"3;a\x00b\r\nabc\r\n",
        b"3,3\r\nabc\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nspace : x\r\n\r\n",
        b"0\r\na: b\r\n folded\r\n\r\n",
        b"0\r\na: b\n\r\n",
        b"0\r\n\n",
    ],
)
def test_malformed_bodies(coded: bytes):
    with pytest.raises(MalformedChunks):
        ChunkedDecoder().feed(coded)
    decoder = ChunkedDecoder()
    with pytest.raises(MalformedChunks):
        for index in range(len(coded)):
            decoder.feed(coded[index : index + 1])


def test_a_line_has_a_longest_length():
    with pytest.raises(MalformedChunks):
        ChunkedDecoder().feed(b"1;" + b"a" * LINE_BYTES_MAX)


@pytest.mark.parametrize("line", [b"1;aaaaaaaaaaaaaaaa\r\na\r\n", b"0\r\n" + b"a: aaaaaaaaa\r\n"])
def test_extensions_and_trailers_are_bounded_in_all(line: bytes):
    decoder = ChunkedDecoder()
    decoder.feed(line)
    with pytest.raises(MalformedChunks):
        for _ in range(OVERHEAD_BYTES_MAX):
            decoder.feed(line.removeprefix(b"0\r\n"))
