"""Passing whole answers on, and what becomes of those that break."""

from __future__ import annotations

import gzip
import json

import pytest
from chat_stream import USAGE
from cutting import bytewise
from fakes import RESET, FakeAnswer
from relaying import relaying, whole_answer

from proxy.exchange.ports import UpstreamFailure
from proxy.exchange.relay import HELD_BYTES, CutShort
from proxy.exchange.usage import Usage


async def test_a_short_answer_leaves_in_one_write_and_its_usage_is_read() -> None:
    body = json.dumps({"choices": [], "usage": USAGE["usage"]}).encode()
    for pieces in ([body], [body[:5], body[5:]], bytewise(body)):
        relay, writer = relaying(whole_answer(*pieces))
        assert await relay.whole() == Usage(9, 4)
        assert writer.writes == [body]
        assert writer.finished
        assert writer.header(b"content-length") is None  # the writer adds it


async def test_an_empty_answer_is_an_answer() -> None:
    relay, writer = relaying(FakeAnswer(status=204))
    assert await relay.whole() is None
    assert (writer.status, writer.body) == (204, b"")


@pytest.mark.parametrize(
    ("body", "content_type", "passes"),
    [
        (b'{"id": ', "application/json", False),
        (b'{"usage":{"prompt_tokens":9,"completion_tokens":4},"id":', "application/json", False),
        (b'{"a"}', "application/json", False),
        (b"<html>Gateway</html>", "application/json; charset=utf-8", False),
        (b"", "application/json", False),
        (b" \r\n", "Application/JSON", False),
        (b"<html>Please sign in</html>", "text/html; charset=utf-8", False),
        (b"[]", "application/json", True),
        (b' {"data": []}\n', "application/json", True),
        (b' {"usage":{"prompt_tokens":9,"completion_tokens":4}}\n', "application/json", True),
        (b"null", "application/json", True),
        (b'{"id": ', "text/plain", True),
        (b"", "audio/mpeg", True),
    ],
)
async def test_an_answer_that_is_no_json_is_no_answer(
    body: bytes, content_type: str, *, passes: bool
) -> None:
    answer = FakeAnswer(headers=[(b"content-type", content_type.encode())], pieces=[body])
    relay, writer = relaying(answer)
    if passes:
        await relay.whole(made=True)
        assert writer.body == body
    else:
        with pytest.raises(UpstreamFailure, match="no JSON"):
            await relay.whole(made=True)
        assert not writer.started
        # A file may hold anything, whatever it is called.
        relay, writer = relaying(FakeAnswer(headers=answer.headers, pieces=[body]))
        await relay.whole()
        assert writer.body == body


async def test_a_break_before_the_first_byte_is_the_exchanges_to_absorb() -> None:
    relay, writer = relaying(whole_answer(b"x" * (HELD_BYTES - 1), failure=RESET))
    with pytest.raises(UpstreamFailure):
        await relay.whole()
    assert not writer.started


async def test_a_long_answer_passes_piece_by_piece_with_its_length_and_usage() -> None:
    body = json.dumps({"data": "x" * 300_000, "usage": USAGE["usage"]}).encode()
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    relay, writer = relaying(whole_answer(*pieces))
    assert await relay.whole() == Usage(9, 4)
    assert writer.writes == [pieces[0] + pieces[1], *pieces[2:]]
    assert writer.header(b"content-length") == b"%d" % len(body)


async def test_a_long_answer_that_breaks_is_aborted() -> None:
    relay, writer = relaying(whole_answer(b"x" * HELD_BYTES, b"y", failure=RESET))
    with pytest.raises(CutShort, match="connection reset"):
        await relay.whole()
    assert writer.aborted
    assert not writer.finished


async def test_a_compressed_answer_passes_as_it_is() -> None:
    body = gzip.compress(json.dumps({"usage": USAGE["usage"]}).encode())
    answer = whole_answer(body)
    answer.headers.append((b"content-encoding", b"gzip"))
    relay, writer = relaying(answer)
    assert await relay.whole() is None
    assert writer.body == body
    assert writer.header(b"content-encoding") == b"gzip"
