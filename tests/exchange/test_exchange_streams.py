"""Streams and long answers that break, as the client sees them."""

from __future__ import annotations

import json

import pytest
from chat_stream import DONE, ROLE, STOP, TEXT
from exchange_bench import ONE, TWO, bench
from fakes import RESET, FakeAnswer, chat, completion, event_stream

AZURE_STREAM_ERROR = (
    b"event: error\ndata: "
    + json.dumps(
        {"type": "error", "error": {"type": "too_many_requests", "code": "no_capacity"}}
    ).encode()
    + b"\n\n"
)


@pytest.mark.parametrize(
    "broken",
    [
        event_stream({"choices": [], "prompt_filter_results": []}, ROLE, AZURE_STREAM_ERROR),
        event_stream(ROLE, failure=RESET),
        event_stream(ROLE),
        event_stream(b": comment\n\n", failure=RESET),
    ],
)
async def test_a_stream_that_fails_before_its_first_output_fails_over(broken: FakeAnswer) -> None:
    healthy = event_stream(ROLE, TEXT, STOP, DONE)
    async with bench(ONE, TWO, one=broken, two=healthy) as b:
        writer = await b.send(chat(stream=True))
        assert writer.header(b"x-proxy-instance") == b"two"
        assert writer.body == b"".join(healthy.pieces)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "cut", [event_stream(ROLE, TEXT, failure=RESET), event_stream(ROLE, TEXT, b'data: {"cho')]
)
async def test_a_stream_cut_after_output_ends_in_an_explicit_error(cut: FakeAnswer) -> None:
    async with bench(ONE, TWO, one=cut, two=completion()) as b:
        writer = await b.send(chat(stream=True))
        assert writer.header(b"x-proxy-instance") == b"one"
        events = writer.body.split(b"\n\n")
        assert events[-2].startswith(b"event: error\n")
        assert json.loads(events[-2].split(b"data: ")[1])["error"]["code"] == "upstream_interrupted"
        assert b"[DONE]" not in writer.body
        assert writer.finished
        assert b.system.standing("one").error_count == 1


async def test_a_long_answer_that_breaks_is_aborted_not_finished() -> None:
    answer = FakeAnswer(
        headers=[(b"content-type", b"audio/mpeg"), (b"content-length", b"999999")],
        pieces=[b"x" * 70_000, b"y" * 70_000],
        failure=RESET,
    )
    async with bench(ONE, one=answer) as b:
        writer = await b.send(chat())
        assert writer.header(b"content-length") == b"999999"
        assert writer.aborted
        assert not writer.finished
