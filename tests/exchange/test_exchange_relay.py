"""Passing answers on: whole ones, streams, and what becomes of those that break."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import Any

import httpx2
import openai
import pytest
import trio
from cutting import bytewise, cut
from fakes import RESET, FakeAnswer, FakeWriter, event_stream
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.ports import Headers, UpstreamFailure
from proxy.exchange.preamble import MAX_HELD_BYTES, MAX_HELD_S
from proxy.exchange.record import RequestRecord
from proxy.exchange.relay import HELD_BYTES, CutShort, Relay, StreamRefused, error_event
from proxy.exchange.usage import SoFar, Usage

FILTER = {"choices": [], "prompt_filter_results": [], "usage": None}
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
TEXT = {"choices": [{"index": 0, "delta": {"content": "hi"}}]}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
ERROR = {"error": {"code": "no_capacity", "type": "too_many_requests", "message": "m"}}
DONE = b"data: [DONE]\n\n"
PLAIN: Headers = [(b"content-type", b"application/json")]


def whole_answer(*pieces: bytes, failure: UpstreamFailure | None = None) -> FakeAnswer:
    length = (b"content-length", b"%d" % sum(map(len, pieces)))
    return FakeAnswer(headers=[*PLAIN, length], pieces=pieces, failure=failure)


def relaying(answer: FakeAnswer) -> tuple[Relay, FakeWriter]:
    writer = FakeWriter()
    record = RequestRecord("id", trio.current_time(), instance="one")
    return Relay(answer, writer, record), writer


async def streamed(answer: FakeAnswer, **options: Any) -> tuple[FakeWriter, Usage | None]:
    relay, writer = relaying(answer)
    usage = await relay.stream(**{"drop_usage": False, **options})
    return writer, usage


async def cut_short(answer: FakeAnswer, **options: Any) -> tuple[FakeWriter, CutShort]:
    relay, writer = relaying(answer)
    with pytest.raises(CutShort) as caught:
        await relay.stream(**{"drop_usage": False, **options})
    assert writer.finished
    assert not writer.aborted
    return writer, caught.value


def last_event(writer: FakeWriter) -> dict[str, Any]:
    event = writer.body.rstrip(b"\n").split(b"\n\n")[-1]
    assert event.startswith(b"event: error\ndata: ")
    data: dict[str, Any] = json.loads(event.split(b"data: ")[1])
    return data


# -- whole answers -------------------------------------------------------------------------


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


# -- streams -------------------------------------------------------------------------------


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


# -- what the official SDK makes of it -----------------------------------------------------


def sdk_client(stream: bytes) -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    transport = httpx2.MockTransport(answer)
    return openai.OpenAI(
        api_key="k",
        base_url="http://proxy/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=transport),
    )


def data_event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def test_the_official_chat_client_raises_at_our_error_event() -> None:
    client = sdk_client(data_event(TEXT) + error_event(None, 1))
    received: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        received.extend(chunk.choices[0].delta.content for chunk in stream)
    assert received == ["hi"]
    assert caught.value.code == "upstream_interrupted"
    assert "incomplete" in caught.value.message
    client.close()


def test_the_official_responses_client_raises_at_our_error_event() -> None:
    delta = {"type": "response.output_text.delta", "delta": "hi", "sequence_number": 0}
    stream = b"event: response.output_text.delta\n" + data_event(delta)
    client = sdk_client(stream + error_event(None, 1))
    received: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        events = client.responses.create(model="m", input="x", stream=True)
        received.extend(event.type for event in events)
    assert received == ["response.output_text.delta"]
    assert caught.value.code == "upstream_interrupted"
    client.close()


def test_our_error_event_is_one_of_the_responses_api() -> None:
    raw = error_event(None, 7).split(b"data: ")[1]
    event = openai.types.responses.ResponseErrorEvent.model_validate_json(raw)
    assert (event.type, event.code, event.sequence_number) == ("error", "upstream_interrupted", 7)
