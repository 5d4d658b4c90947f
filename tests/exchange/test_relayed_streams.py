"""Passing streams on, and what becomes of those that break."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import Any

import pytest
import trio
from chat_stream import DONE, ROLE, STOP, TEXT, USAGE
from cutting import bytewise, cut
from fakes import RESET, event_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from relaying import ERROR, cut_short, last_event, relaying, streamed

from proxy.exchange.ports import UpstreamFailure
from proxy.exchange.preamble import MAX_HELD_BYTES, MAX_HELD_S
from proxy.exchange.relay import CutShort, StreamRefused
from proxy.exchange.usage import SoFar, Usage

FILTER = {"choices": [], "prompt_filter_results": [], "usage": None}


async def test_the_start_up_is_held_until_there_is_output() -> None:
    answer = event_stream(FILTER, ROLE, b": comment\n\n", TEXT, STOP, USAGE, DONE)
    writer, usage = await streamed(answer)
    assert usage == Usage(9, 4)
    assert writer.body == b"".join(answer.pieces)  # type: ignore[arg-type]
    assert len(writer.writes) == 4
    assert b"hi" in writer.writes[0]


async def test_events_that_come_together_leave_together() -> None:
    pieces: Any = event_stream(FILTER, ROLE, TEXT, STOP, USAGE, DONE).pieces
    together = event_stream(b"".join(pieces))
    writer, usage = await streamed(together, drop_usage=True)
    assert usage == Usage(9, 4)
    assert writer.writes == [b"".join(pieces[:4]) + DONE]


@pytest.mark.parametrize("before", [(), (FILTER,), (FILTER, ROLE), (b": c\n\n", ROLE)])
@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ((ERROR,), StreamRefused),
        ((b"event: error\ndata: text\n\n",), StreamRefused),
        ((ERROR, TEXT), StreamRefused),
        ((RESET,), UpstreamFailure),
        ((), UpstreamFailure),
        ((b'data: {"cho',), UpstreamFailure),
    ],
)
async def test_what_breaks_before_any_output_has_shown_nothing(
    before: tuple[Any, ...], broken: tuple[Any, ...], kind: type[Exception]
) -> None:
    failure = RESET if RESET in broken else None
    events = [event for event in (*before, *broken) if event is not RESET]
    relay, writer = relaying(event_stream(*events, failure=failure))
    with pytest.raises(kind) as caught:
        await relay.stream(drop_usage=False)
    assert not writer.started
    if isinstance(caught.value, StreamRefused):
        assert caught.value.error in (ERROR["error"], {"message": "text"})


@pytest.mark.parametrize(
    ("events", "failure", "code"),
    [
        ((TEXT,), RESET, "upstream_interrupted"),
        ((TEXT,), None, "upstream_interrupted"),
        ((TEXT, b'data: {"cho'), None, "upstream_interrupted"),
        ((TEXT, {**TEXT, "usage": USAGE["usage"]}), RESET, "upstream_interrupted"),
        ((TEXT, b'data: {"cho\n\n', STOP), None, "upstream_malformed_event"),
        ((TEXT, b"data: no JSON\n\n", DONE), None, "upstream_malformed_event"),
    ],
)
async def test_a_cut_after_output_ends_in_one_error_event(
    events: tuple[Any, ...], failure: UpstreamFailure | None, code: str
) -> None:
    relay, writer = relaying(event_stream(*events, failure=failure))
    with pytest.raises(CutShort) as caught:
        await relay.stream(drop_usage=False)
    assert (writer.finished, writer.aborted) == (True, False)
    event = last_event(writer)
    assert event["error"]["code"] == event["code"] == code
    assert writer.body.count(b"event: error") == 1
    assert b"[DONE]" not in writer.body
    for shown in writer.body.rstrip(b"\n").split(b"\n\n"):
        json.loads(shown.split(b"data: ")[1])
    assert caught.value.error is None
    with_usage = isinstance(events[-1], dict) and "usage" in events[-1]
    used = Usage(9, 4) if with_usage else Usage(7, 1)
    assert relay.so_far(7) == (used, with_usage, False)


@pytest.mark.parametrize("last", [STOP, USAGE, DONE])
@pytest.mark.parametrize("fault", [RESET, b"data: no JSON\n\n"])
async def test_what_goes_wrong_after_the_end_of_the_answer_is_nobodys_loss(
    last: Any, fault: Any
) -> None:
    events = event_stream(TEXT, last)
    broken = event_stream(*events.pieces, *([] if fault is RESET else [fault]))
    broken.failure = fault if fault is RESET else None
    writer, usage = await streamed(broken)
    assert writer.body == b"".join(events.pieces)  # type: ignore[arg-type]
    assert writer.finished
    assert usage == (Usage(9, 4) if last is USAGE else None)


async def test_a_stream_that_ends_by_closing_has_to_be_closed() -> None:
    events = event_stream({"type": "transcript.text.delta"}, failure=RESET)
    writer, _ = await cut_short(events, ending="close")
    assert last_event(writer)["code"] == "upstream_interrupted"


async def test_an_event_that_is_too_long_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.exchange.sse.MAX_EVENT_BYTES", 1000)
    long = [b"data: " + b"x" * 600, b"x" * 600]
    writer, cut = await cut_short(event_stream(TEXT, *long))
    assert last_event(writer)["code"] == "upstream_event_too_long"
    assert cut.reason == "event too long"
    for fault, says in ((long, "too long"), ([b"data: no JSON\n\n"], "malformed")):
        relay, writer = relaying(event_stream(ROLE, *fault))
        with pytest.raises(UpstreamFailure, match=says):
            await relay.stream(drop_usage=False)
        assert not writer.started


@pytest.mark.parametrize("together", [True, False])
async def test_the_upstreams_own_error_event_is_the_last_one(together: bool) -> None:
    pieces: Any = event_stream(TEXT, ERROR).pieces
    # What would come after it is not waited for.
    answer = event_stream(*([b"".join(pieces)] if together else pieces))
    answer.pieces = [*answer.pieces, (1e9, b"never")]
    writer, cut = await cut_short(answer)
    assert writer.body == b"".join(pieces)
    assert cut.error == ERROR["error"]
    assert cut.reason == "error event: no_capacity: m"


@pytest.mark.parametrize(
    ("events", "options"),
    [
        ((TEXT, STOP), {}),
        ((TEXT, DONE), {}),
        ((TEXT, b"data: [DONE]"), {}),
        ((DONE,), {}),
        (({"type": "response.output_text.delta"}, {"type": "response.completed"}),
         {"ending": "response"}),
        (({"type": "transcript.text.delta", "delta": "h"},), {"ending": "close"}),
        (({"type": "image_generation.completed", "usage": {"input_tokens": 9}},),
         {"ending": "close"}),
        ((b": nothing\n\n",), {"ending": "close"}),
        ((), {"ending": "close"}),
        ((TEXT, STOP, STOP), {"choices": 2}),
    ],
)  # fmt: skip
async def test_a_clean_end_is_left_alone(events: tuple[Any, ...], options: dict[str, Any]) -> None:
    writer, _ = await streamed(event_stream(*events), **options)
    assert b"error" not in writer.body
    assert writer.finished


async def test_of_two_choices_both_have_to_finish() -> None:
    writer, _ = await cut_short(event_stream(TEXT, STOP), choices=2)
    assert last_event(writer)["code"] == "upstream_interrupted"


async def test_the_start_up_is_held_for_bounded_bytes() -> None:
    comments = [b": %b\n\n" % (b"x" * 50_000)] * 8
    seen: list[bytes] = []

    async def on_write(data: bytes) -> None:
        seen.append(data)

    relay, writer = relaying(event_stream(*comments, TEXT, STOP))
    writer._on_write = on_write
    await relay.stream(drop_usage=False)
    assert MAX_HELD_BYTES <= len(seen[0]) < MAX_HELD_BYTES + 60_000
    assert b"hi" not in seen[0]


async def test_the_start_up_is_held_for_a_bounded_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    comments = [(5.0, b": alive\n\n")] * 10
    answer = event_stream(TEXT, STOP)
    answer.pieces = [*comments, *answer.pieces]
    first: list[float] = []

    async def on_write(data: bytes) -> None:
        first.append(trio.current_time())

    started = trio.current_time()
    relay, writer = relaying(answer)
    writer._on_write = on_write
    await relay.stream(drop_usage=False)
    assert MAX_HELD_S <= first[0] - started <= MAX_HELD_S + 5
    assert writer.body.count(b"alive") == 10


DELTA = {"type": "response.output_text.delta", "delta": "hi", "sequence_number": 4}
FAILED = {"type": "response.failed", "response": {"error": {"code": "server_error"}}}


@pytest.mark.parametrize(
    ("after", "failure", "code"),
    [
        ((), RESET, "upstream_interrupted"),
        ((), None, "upstream_interrupted"),
        ((), UpstreamFailure("body", "timeout", "silent"), "upstream_interrupted"),
        ((b"data: {]\n\n",), None, "upstream_malformed_event"),
        ((b"event: response.completed\ndata: {\n\n",), None, "upstream_malformed_event"),
        ((b"data: " + b"x" * 600, b"x" * 600), None, "upstream_event_too_long"),
        ((FAILED,), None, "server_error"),
        (({"type": "error", "code": "server_error", "sequence_number": 5},), None, "server_error"),
    ],
)
async def test_a_response_that_breaks_after_output_ends_in_one_error_too(
    after: tuple[Any, ...],
    failure: UpstreamFailure | None,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.exchange.sse.MAX_EVENT_BYTES", 1000)
    created = {"type": "response.created", "sequence_number": 0}
    answer = event_stream(created, DELTA, *after, failure=failure)
    writer, _ = await cut_short(answer, ending="response")
    *events, last = writer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert [json.loads(event.split(b"data: ")[1])["type"] for event in events] == [
        "response.created", "response.output_text.delta",
    ]  # fmt: skip
    document = json.loads(last.split(b"data: ")[1])
    error = document.get("response", document).get("error", document)
    assert error["code"] == code
    if code.startswith("upstream"):
        assert (document["type"], document["sequence_number"]) == ("error", 2)
    assert b"[DONE]" not in writer.body


async def test_the_start_up_is_shown_in_time_although_nothing_follows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    written: list[tuple[float, bytes]] = []

    async def on_write(data: bytes) -> None:
        written.append((trio.current_time(), data))

    answer = event_stream(ROLE, TEXT, STOP, DONE)
    role, text, *rest = answer.pieces  # type: ignore[misc]
    answer.pieces = [(2.0, role), (100.0, text), *rest]
    relay, writer = relaying(answer)
    writer._on_write = on_write
    await relay.stream(drop_usage=False)
    assert written[:2] == [(2.0 + MAX_HELD_S, role), (102.0, text)]
    assert writer.finished
    # As long as there is nothing to show, another instance may still do better.
    answer = event_stream(TEXT, STOP)
    answer.pieces = [(100.0, b": alive\n\n"), *answer.pieces]
    answer.deadline = trio.current_time() + 60
    relay, writer = relaying(answer)
    with pytest.raises(UpstreamFailure):
        await relay.stream(drop_usage=False)
    assert not writer.started


@pytest.mark.parametrize("drop_usage", [True, False])
async def test_a_compressed_stream_is_decoded_read_and_sent_on_plain(drop_usage: bool) -> None:
    pieces: Any = event_stream(FILTER, TEXT, STOP, USAGE, DONE).pieces
    plain = b"".join(pieces)
    coded = gzip.compress(plain)
    answer = event_stream(*(coded[at : at + 7] for at in range(0, len(coded), 7)))
    answer.headers += [(b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(coded))]
    writer, usage = await streamed(answer, drop_usage=drop_usage)
    assert usage == Usage(9, 4)
    assert writer.body == (plain.replace(pieces[3], b"") if drop_usage else plain)
    assert writer.header(b"content-encoding") is None
    assert writer.header(b"content-length") is None


async def test_a_compressed_stream_fails_over_and_breaks_like_any_other() -> None:
    coding = (b"content-encoding", b"gzip")
    plain: Any = event_stream(FILTER, ERROR).pieces
    refused = event_stream(gzip.compress(b"".join(plain)))
    refused.headers.append(coding)
    relay, writer = relaying(refused)
    with pytest.raises(StreamRefused):
        await relay.stream(drop_usage=False)
    assert not writer.started
    plain = event_stream(TEXT).pieces
    cut = event_stream(gzip.compress(b"".join(plain)) + b"garbage")
    cut.headers.append(coding)
    writer, broken = await cut_short(cut)
    assert writer.body.startswith(b"".join(plain))
    assert "not in its coding" in broken.reason


async def test_a_stream_in_an_unknown_coding_passes_unread() -> None:
    pieces = [b"\x8b\x03\x80", b'data: {"error":{}}\n\n', b"\x03"]
    answer = event_stream(*pieces)
    answer.headers.append((b"content-encoding", b"br"))
    writer, usage = await streamed(answer, drop_usage=True)
    assert usage is None
    assert writer.writes == pieces
    assert writer.header(b"content-encoding") == b"br"
    assert writer.finished
    answer = event_stream(*pieces, failure=RESET)
    answer.headers.append((b"content-encoding", b"br"))
    relay, writer = relaying(answer)
    with pytest.raises(CutShort):
        await relay.stream(drop_usage=True)
    assert writer.aborted
    empty = event_stream()
    empty.headers.append((b"content-encoding", b"br"))
    writer, _ = await streamed(empty)
    assert writer.writes == []


EVENTS = st.lists(
    st.sampled_from([FILTER, ROLE, TEXT, STOP, USAGE, ERROR, DONE, b": c\n\n", b"data: {"]),
    max_size=7,
)


@settings(deadline=None)
@given(
    EVENTS,
    st.lists(st.integers(0), max_size=10),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["choices", "response", "close"]),
)
def test_a_stream_ends_cleanly_or_with_an_error_or_was_never_begun(
    events: list[Any], places: list[int], broken: bool, drop_usage: bool, ending: str
) -> None:
    pieces: Any = event_stream(*events).pieces
    data = b"".join(pieces)

    async def relay_it(pieces: Iterable[bytes]) -> tuple[str, bytes, SoFar]:
        answer = event_stream(*pieces, failure=RESET if broken else None)
        relay, writer = relaying(answer)
        try:
            await relay.stream(drop_usage=drop_usage, ending=ending)  # type: ignore[arg-type]
        except (UpstreamFailure, StreamRefused):
            assert not writer.started
            return "refused", b"", relay.so_far(7)
        except CutShort as broken_off:
            assert writer.finished
            assert writer.body.count(b'"error": {') == 1
            return ("error" if broken_off.error else "cut"), writer.body, relay.so_far(7)
        assert writer.finished
        assert b'"error"' not in writer.body
        return "clean", writer.body, relay.so_far(7)

    outcome, body, used = trio.run(relay_it, cut(data, places))
    if not used.reported and ending != "response":
        shown = [part for part in body.split(b"\n\n") if b'"error"' not in part]
        with_output = [part for part in shown if json.dumps(TEXT).encode() in part]
        assert used.usage.output >= len(with_output)
        assert used.usage.output <= sum(part.startswith(b"data: {") for part in shown)
    if outcome == "clean" and not drop_usage:
        assert data.startswith(body.removesuffix(b"\n"))
    single = trio.run(relay_it, bytewise(data))
    assert single == (outcome, body, used)
