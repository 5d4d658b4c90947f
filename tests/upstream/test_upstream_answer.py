"""The answer parser: what it reads, what it refuses, and that pieces make no difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from faulty_upstream import chunk, event, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.upstream.answer import FRAMING_BYTES, HEAD_BYTES, HEADERS, Answer

if TYPE_CHECKING:
    from proxy.exchange.ports import Headers

OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Reading:
    """All that a reader can know after some bytes and perhaps the end."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    head_complete: bool
    complete: bool
    keep: bool
    failed: str | None


def read(*pieces: bytes, method: str = "POST") -> Reading:
    answer = Answer()
    answer.expect(method)
    return continue_reading(answer, *pieces)


def continue_reading(answer: Answer, *pieces: bytes, end: bool = True) -> Reading:
    body = b""
    for piece in pieces:
        answer.feed(piece)
        body += answer.take()
    if end:
        answer.end()
    headers: Headers = answer.headers
    return Reading(
        answer.status, tuple(headers), body, answer.head_complete, answer.complete,
        answer.keep and answer.complete and answer.failed is None,
        answer.failed[0] if answer.failed else None,
    )  # fmt: skip


GOOD = {
    "length": (OK + b"Content-Length: 5\r\nX-A:  b \r\n\r\nhello", b"hello", True),
    "empty": (OK + b"content-length: 0\r\n\r\n", b"", True),
    "chunked": (OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
                b"hello", True),
    "trailer": (OK + b"transfer-encoding: Chunked\r\n\r\n1\r\na\r\n0\r\nx: v\r\n\r\n", b"a", True),
    "events": (stream(2), event("0") + event("1") + b"data: [DONE]\n\n", True),
    "until close": (OK + b"x: y\r\n\r\nhello", b"hello", False),
    "close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nab", b"ab", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", False),
    "HTTP/1.0 kept": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na", b"a", True),
    "interim": (
        b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: z\r\n\r\n"
        + OK + b"content-length: 1\r\n\r\na", b"a", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b"", True),
    "surplus": (OK + b"content-length: 1\r\n\r\naHTTP/1.1 500 No\r\nx: y\r\n\r\n", b"a", False),
    "surplus bytes": (OK + b"content-length: 1\r\n\r\nabc", b"a", False),
    "surplus after close": (OK + b"connection: close\r\ncontent-length: 1\r\n\r\nabc", b"a", False),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\na", b"a", True),
}  # fmt: skip

BAD = {
    "length and chunked": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\na",
    "list of lengths": OK + b"content-length: 1, 1\r\n\r\na",
    "signed length": OK + b"content-length: +1\r\n\r\na",
    "huge length": OK + b"content-length: 99999999999999999999\r\n\r\na",
    "gzip coding": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "identity": OK + b"transfer-encoding: identity\r\n\r\nabc",
    "bare LF": b"HTTP/1.1 200 OK\ncontent-length: 1\n\na",
    "space before colon": OK + b"content-length : 1\r\n\r\na",
    "folded line": OK + b"x: y\r\n z\r\ncontent-length: 1\r\n\r\na",
    "bare CR": OK + b"x: y\rz\r\ncontent-length: 1\r\n\r\na",
    "NUL": OK + b"x: \0\r\ncontent-length: 1\r\n\r\na",
    "no name": OK + b": y\r\ncontent-length: 1\r\n\r\na",
    "switching": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",
    "switching plainly": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "status 099": b"HTTP/1.1 099 No\r\ncontent-length: 0\r\n\r\n",
    "status 2000": b"HTTP/1.1 2000 No\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 1\r\n\r\na",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\na",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "HTML": b"<html>",
    "bad chunk size": OK + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
    "chunk too long": OK + b"transfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
    "large chunk size": OK + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "bare LF in chunks": OK + b"transfer-encoding: chunked\r\n\r\n1\na\n0\n\n",
    "many headers": OK + b"x: y\r\n" * (HEADERS + 1) + b"content-length: 0\r\n\r\n",
    "large header": OK + b"x: " + b"y" * HEAD_BYTES + b"\r\ncontent-length: 0\r\n\r\n",
    "endless interim": b"HTTP/1.1 100 Continue\r\n\r\n" * (HEAD_BYTES // 25 + 1) + OK + b"\r\n",
    "endless status line": b"HTTP/1.1 200 " + b"x" * HEAD_BYTES,
}

EARLY = {
    "nothing": b"",
    "half a head": OK + b"content-le",
    "half a body": OK + b"content-length: 5\r\n\r\nhel",
    "half a chunk": OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhel",
    "no last chunk": OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n",
    "no end of the trailer": OK + b"transfer-encoding: chunked\r\n\r\n0\r\n",
    "only interim": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_complete_answers(name: str) -> None:
    wire, body, keep = GOOD[name]
    reading = read(wire)
    assert (reading.body, reading.complete, reading.keep) == (body, True, keep)
    assert reading.failed is None


@pytest.mark.parametrize("name", BAD)
def test_what_could_be_read_in_two_ways_is_refused(name: str) -> None:
    reading = read(BAD[name])
    assert reading.failed == "protocol"
    assert not reading.complete


@pytest.mark.parametrize("name", EARLY)
def test_an_early_end_is_no_complete_answer(name: str) -> None:
    reading = read(EARLY[name])
    assert (reading.complete, reading.failed) == (False, "reset")


def test_headers_are_lower_case_and_trimmed_in_order_with_repetitions() -> None:
    wire = OK + b"Set-Cookie: a\r\nX-B: \t c d \t\r\nset-cookie: e\r\nEmpty:\r\n\r\n"
    assert read(wire).headers == (
        (b"set-cookie", b"a"), (b"x-b", b"c d"), (b"set-cookie", b"e"), (b"empty", b""),
    )  # fmt: skip


def test_interim_headers_and_trailers_are_not_the_answers() -> None:
    assert read(GOOD["interim"][0]).headers == ((b"content-length", b"1"),)
    assert read(GOOD["trailer"][0]).headers == ((b"transfer-encoding", b"Chunked"),)


def test_a_head_of_exactly_the_limit_is_read() -> None:
    start, end = OK + b"x: ", b"\r\ncontent-length: 1\r\n\r\n"
    filled = start + b"y" * (HEAD_BYTES - len(start) - len(end)) + end
    assert read(filled + b"a").body == b"a"
    assert read(filled.replace(b"x: ", b"x: y", 1) + b"a").failed == "protocol"


@pytest.mark.parametrize("method", ["HEAD", "CONNECT"])
def test_an_answer_without_its_body_and_the_next_one(method: str) -> None:
    answer = Answer()
    for _ in range(2):
        answer.expect(method)
        reading = continue_reading(answer, OK + b"content-length: 5\r\n\r\n", end=False)
        assert (reading.complete, reading.keep, reading.body) == (True, True, b"")
    answer.expect("GET")
    assert continue_reading(answer, OK + b"content-length: 5\r\n\r\nhello").body == b"hello"
    answer.expect(method)
    assert not continue_reading(answer, OK + b"content-length: 5\r\n\r\nhello").keep


def test_answers_follow_each_other_on_one_connection() -> None:
    answer = Answer()
    for name, (wire, body, keep) in GOOD.items():
        if keep:
            answer.expect("POST")
            reading = continue_reading(answer, wire, end=False)
            assert (reading.body, reading.complete, reading.keep) == (body, True, True), name


def test_framing_without_content_is_bounded() -> None:
    begin = OK + b"transfer-encoding: chunked\r\n\r\n1"
    flood = [b";x=" + b"y" * 1000] * (FRAMING_BYTES // 1000 + 2)
    assert read(begin, *flood).failed == "protocol"
    assert read(begin + b"\r\na\r\n0\r\n", *[b"x: y\r\n"] * FRAMING_BYTES).failed == "protocol"
    ticks = [chunk(b"a")] * FRAMING_BYTES
    assert read(OK + b"transfer-encoding: chunked\r\n\r\n", *ticks, b"0\r\n\r\n").complete


WIRES = {name: wire for name, (wire, _, _) in GOOD.items()} | BAD | EARLY


@settings(deadline=None)
@given(st.data())
def test_pieces_make_no_difference(data: st.DataObject) -> None:
    wire = data.draw(st.sampled_from([wire for wire in WIRES.values() if len(wire) < 2000]))
    method = data.draw(st.sampled_from(["POST", "HEAD"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True) if a < b]
    assert read(*pieces, method=method) == read(wire, method=method)


@pytest.mark.parametrize("name", WIRES)
def test_one_byte_at_a_time(name: str) -> None:
    wire = WIRES[name]
    assert read(*(wire[n : n + 1] for n in range(len(wire)))) == read(wire)


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_raise(garbage: bytes, after_head: bool) -> None:
    prefix = OK + b"transfer-encoding: chunked\r\n\r\n" if after_head else b"HTTP/1.1 "
    reading = read(prefix + garbage)
    assert reading.complete or reading.failed is not None
