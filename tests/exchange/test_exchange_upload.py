"""Uploads: sent while they arrive, and repeated exactly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from fakes import FakeRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BodyTooLarge
from proxy.exchange import upload as upload_module
from proxy.exchange.multipart import FormField
from proxy.exchange.upload import Upload


@pytest.fixture
def small_memory() -> Iterator[None]:
    """So that a few bytes go to the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload_module, "MEMORY_BYTES", 10)
        patch.setattr(upload_module, "READ_BYTES", 7)
        yield


async def read_all(body: Upload) -> bytes:
    pieces = []
    while piece := await body.read_chunk():
        pieces.append(piece)
    assert await body.read_chunk() == b""
    return b"".join(pieces)


@pytest.mark.parametrize("total", [0, 1, 10, 11, 100])
async def test_each_attempt_gets_the_whole_body(total: int, small_memory: None) -> None:
    content = bytes(range(256))[:total]
    request = FakeRequest(pieces=[content[at : at + 3] for at in range(0, total, 3)])
    body = Upload(request, total)
    for _ in range(3):
        body.rewind()
        assert await read_all(body) == content
    assert body.length == total
    assert body.received_bytes == total
    body.close()


async def test_a_piece_is_passed_on_as_soon_as_it_has_come() -> None:
    request = FakeRequest(pieces=[b"ab", b"cd"])
    body = Upload(request, None)
    assert await body.read_chunk() == b"ab"
    assert request._left == [b"cd"]
    assert body.length is None


async def test_what_was_searched_is_sent_too() -> None:
    body = Upload(FakeRequest(pieces=[b"ab", b"cd", b"ef"]), 6)
    assert await body.receive() == b"ab"
    assert await body.receive() == b"cd"
    assert await read_all(body) == b"abcdef"
    assert await body.receive() == b""


async def test_the_field_changes_from_the_next_attempt_on() -> None:
    body = Upload(FakeRequest(pieces=[b"head ol", b"d tail"]), 13)
    assert await read_all(body) == b"head old tail"
    for value, length in (("new one", 17), ("", 10), ("old", 13), ("é", 12)):
        body.replace(FormField("old", 5, 8), value)
        body.rewind()
        assert await read_all(body) == f"head {value} tail".encode()
        assert body.length == length


@settings(deadline=None)
@given(
    content=st.binary(max_size=80),
    sizes=st.lists(st.integers(1, 30), max_size=20),
    spot=st.tuples(st.integers(0, 80), st.integers(1, 20)),
    value=st.text(max_size=5),
    reads=st.lists(st.integers(0, 8), max_size=4),
    memory_bytes=st.sampled_from([0, 5, 20, 1000]),
    read_bytes=st.sampled_from([1, 3, 1000]),
)
def test_however_often_an_attempt_breaks_off_the_next_one_is_exact(
    content: bytes,
    sizes: list[int],
    spot: tuple[int, int],
    value: str,
    reads: list[int],
    memory_bytes: int,
    read_bytes: int,
) -> None:
    start = min(spot[0], len(content))
    end = min(start + spot[1], len(content))
    expected = content[:start] + value.encode() + content[end:]
    pieces, at = [], 0
    for size in sizes:
        pieces.append(content[at : at + size])
        at += size
    pieces.append(content[at:])

    async def attempts() -> None:
        body = Upload(FakeRequest(pieces=[piece for piece in pieces if piece]), len(content))
        if start < end:
            body.replace(FormField("", start, end), value)
        wanted = expected if start < end else content
        assert body.length == len(wanted)
        for count in reads:
            body.rewind()
            got = b""
            for _ in range(count):
                got += await body.read_chunk()
            assert wanted.startswith(got)
        body.rewind()
        assert await read_all(body) == wanted
        body.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload_module, "MEMORY_BYTES", memory_bytes)
        patch.setattr(upload_module, "READ_BYTES", read_bytes)
        trio.run(attempts)


async def test_a_piece_is_not_lost_when_its_attempt_is_cancelled(small_memory: None) -> None:
    """An upstream that refuses early cancels the sending of the rest; the next gets all of it."""
    content = bytes(range(60))
    for checkpoints in range(80):
        body = Upload(FakeRequest(pieces=[content[at : at + 4] for at in range(0, 60, 4)]), 60)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_all, body)
                for _ in range(checkpoints // 2):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        body.rewind()
        assert await read_all(body) == content
        body.close()


async def test_a_body_that_is_too_large_is_refused_in_every_attempt() -> None:
    body = Upload(FakeRequest(pieces=[b"x" * 10] * 3, limit=15), None)
    assert await body.read_chunk() == b"x" * 10
    with pytest.raises(BodyTooLarge):
        await body.read_chunk()


async def test_memory_is_bounded_and_the_file_goes_with_the_upload(small_memory: None) -> None:
    body = Upload(FakeRequest(pieces=[b"x" * 9] * 50), None)
    largest = 0
    while await body.read_chunk():
        largest = max(largest, len(body._spool._memory))
    assert largest <= upload_module.MEMORY_BYTES + 9
    file = body._spool._file
    assert file is not None
    body.close()
    assert file.closed
    body.close()
