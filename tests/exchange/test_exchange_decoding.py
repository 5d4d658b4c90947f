"""Streams that came compressed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable

import pytest
import trio
from cutting import cut
from fakes import FakeAnswer
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.decoding import PIECE_BYTES, DecodedResponse, content_coding, decodable
from proxy.exchange.ports import UpstreamFailure

TEXT = b"".join(b'data: {"n": %d}\n\n' % n for n in range(200))


def answer(pieces: Iterable[bytes], coding: bytes = b"gzip") -> FakeAnswer:
    return FakeAnswer(
        headers=[(b"content-type", b"text/event-stream"), (b"content-encoding", coding)],
        pieces=list(pieces),
    )


async def pieces_of(response: DecodedResponse) -> list[bytes]:
    pieces = []
    while piece := await response.read_chunk():
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize(
    ("headers", "coding", "known"),
    [
        ([], b"", False),
        ([(b"content-encoding", b"identity")], b"", False),
        ([(b"content-encoding", b" GZIP ")], b"gzip", True),
        ([(b"content-encoding", b"x-gzip")], b"x-gzip", True),
        ([(b"content-encoding", b"deflate")], b"deflate", True),
        ([(b"content-encoding", b"br")], b"br", False),
        ([(b"content-encoding", b"gzip, gzip")], b"gzip, gzip", False),
        ([(b"content-encoding", b"gzip"), (b"content-encoding", b"br")], b"gzip,br", False),
    ],
)
def test_the_coding_is_read_from_the_head(
    headers: list[tuple[bytes, bytes]], coding: bytes, *, known: bool
) -> None:
    assert content_coding(headers) == coding
    assert decodable(coding) is known


async def test_the_decoded_answer_says_nothing_of_its_coding() -> None:
    response = DecodedResponse(answer([gzip.compress(TEXT)]), b"gzip")
    assert response.headers == [(b"content-type", b"text/event-stream")]
    assert response.status == 200
    assert b"".join(await pieces_of(response)) == TEXT


@settings(deadline=None)
@given(
    st.binary(max_size=300) | st.just(TEXT),
    st.sampled_from([b"gzip", b"deflate"]),
    st.lists(st.integers(0, 400), max_size=10),
    st.integers(1, 3),
)
def test_any_pieces_give_the_same_text(
    text: bytes, coding: bytes, places: list[int], bodies: int
) -> None:
    coded = (gzip.compress(text) if coding == b"gzip" else zlib.compress(text)) * bodies

    async def check() -> None:
        response = DecodedResponse(answer(cut(coded, places), coding), coding)
        assert b"".join(await pieces_of(response)) == text * bodies

    trio.run(check)


async def test_what_a_flush_has_finished_comes_at_once() -> None:
    coder = zlib.compressobj(wbits=31)
    sent = [
        coder.compress(event) + coder.flush(zlib.Z_SYNC_FLUSH)
        for event in (b"data: 1\n\n", b"data: 2\n\n")
    ]
    response = DecodedResponse(answer([*sent, coder.flush()]), b"gzip")
    assert await pieces_of(response) == [b"data: 1\n\n", b"data: 2\n\n"]


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 40 * PIECE_BYTES])
async def test_a_small_piece_that_stands_for_much_comes_in_parts(size: int) -> None:
    pieces = await pieces_of(DecodedResponse(answer([gzip.compress(b"x" * size)]), b"gzip"))
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert b"".join(pieces) == b"x" * size


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
async def test_what_is_not_in_its_coding_is_a_failure_of_the_upstream(coding: bytes) -> None:
    response = DecodedResponse(answer([b"data: plain\n\n"], coding), coding)
    with pytest.raises(UpstreamFailure) as caught:
        await response.read_chunk()
    assert (caught.value.phase, caught.value.kind) == ("body", "protocol")


async def test_closing_closes_what_is_below() -> None:
    below = answer([])
    await DecodedResponse(below, b"gzip").aclose()
    assert below.closed
