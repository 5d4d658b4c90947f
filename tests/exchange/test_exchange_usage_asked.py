"""Usage that streams are asked for, and upstreams that can't be asked."""

from __future__ import annotations

import itertools
import json

import pytest
import trio
from chat_stream import DONE, ROLE, STOP, TEXT, USAGE
from exchange_bench import ONE, TWO, bench
from fakes import FakeWriter, chat, completion, error_answer, event_stream
from harness import instance_config
from trio.testing import MockClock

from proxy.exchange.unaskable import BELIEVED_S


async def test_a_stream_passes_event_by_event_without_the_usage_we_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen: list[tuple[float, bytes]] = []

    async def on_write(data: bytes) -> None:
        seen.append((trio.current_time(), data))

    answer = event_stream(ROLE, TEXT, STOP, USAGE, DONE)
    answer.pieces = [(1.0, piece) for piece in answer.pieces]  # type: ignore[misc]
    async with bench(ONE, one=answer) as b:
        writer = await b.send(chat(stream=True), FakeWriter(on_write))
        sent = json.loads(b.upstream.requests[0].body)  # type: ignore[arg-type]
        assert sent["stream_options"] == {"include_usage": True}
        expected = [json.loads(data.split(b"data: ")[-1]) for _, data in seen[:-1]]
        assert expected == [TEXT, STOP]
        assert writer.body.endswith(DONE)
        assert b"prompt_tokens" not in writer.body
        gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(seen)]
        assert gaps == [1.0, 2.0]
        assert b.system.standing("one").account.usage.total(trio.current_time()) == 13


async def test_a_client_that_asks_for_usage_gets_it() -> None:
    answer = event_stream(TEXT, STOP, USAGE, DONE)
    request = chat(stream=True, stream_options={"include_usage": True})
    async with bench(ONE, one=answer) as b:
        writer = await b.send(request)
        assert b.upstream.requests[0].body == request.pieces[0]
        assert b"prompt_tokens" in writer.body


async def test_old_api_versions_are_not_asked_for_usage_which_is_counted_instead() -> None:
    config = instance_config("one", api_version="2024-02-01", max_tpm=10**6)
    async with bench(config, one=event_stream(ROLE, *[TEXT] * 97, STOP, DONE)) as b:
        request = chat(stream=True, max_tokens=5000)
        await b.send(request)
        assert b.upstream.requests[0].body == request.pieces[0]
        used = b.system.standing("one").account.usage.total(trio.current_time())
        assert 100 < used < 130, "a hundred events, and the question"
        # Nobody has said so: it is not reported as if somebody had.
        assert b.records[0].output_tokens is None


@pytest.mark.parametrize(
    "surface",
    [
        {"provider_type": "generic", "api_base": "http://x"},
        {"api_version": "2025-01-01-preview"},
    ],
)
async def test_an_upstream_that_can_not_be_asked_for_usage_is_asked_once(
    surface: dict[str, str],
) -> None:
    # It is no retry: the client's own request has not been refused by anybody.
    config = instance_config("one", priority=1, max_tpm=10**6, retry_count=0, **surface)
    refusal = error_answer(400, message="Unrecognized request argument: stream_options")
    healthy = event_stream(TEXT, STOP, DONE)
    async with bench(config, TWO, one=[refusal, healthy], two=completion()) as b:
        for _ in range(2):
            writer = await b.send(chat(stream=True))
            assert (writer.status, writer.header(b"x-proxy-instance")) == (200, b"one")
        asked = [b"stream_options" in request.body for request in b.upstream.requests]  # type: ignore[operator]
        assert asked == [True, False, False]
        assert b.system.standing("one").error_count == 0
        # Another version may know it.
        await b.system.administration.update_config("one", {"api_version": "2025-04-01-preview"})
        await b.send(chat(stream=True))
        assert b"stream_options" in b.upstream.requests[-1].body  # type: ignore[operator]


async def test_one_clients_bad_request_does_not_end_the_asking_for_usage() -> None:
    """Its error quotes it, and so names the field; without the field it is as bad."""
    refusal = error_answer(400, message="Invalid value: 'stream_options'.")
    healthy = event_stream(TEXT, STOP, USAGE, DONE)
    async with bench(ONE, TWO, one=[refusal, refusal, healthy], two=completion()) as b:
        bad = await b.send(chat(stream=True, tool_choice="stream_options"))
        assert (bad.status, bad.header(b"x-proxy-attempts")) == (400, b"2")
        assert (await b.send(chat(stream=True))).status == 200
        asked = [b"include_usage" in request.body for request in b.upstream.requests]  # type: ignore[operator]
        assert asked == [True, False, True]
        assert b.records[-1].output_tokens == 4


async def test_an_upstream_is_not_believed_if_the_request_succeeds_elsewhere_only() -> None:
    refusal = error_answer(400, message="Unrecognized request argument: stream_options")
    answers = [refusal, error_answer(500, "x"), event_stream(TEXT, STOP, DONE)]
    async with bench(ONE, TWO, one=answers, two=event_stream(TEXT, STOP, DONE)) as b:
        assert (await b.send(chat(stream=True))).header(b"x-proxy-instance") == b"two"
        assert (await b.send(chat(stream=True))).header(b"x-proxy-instance") == b"one"
        asked = [b"include_usage" in request.body for request in b.upstream.requests]  # type: ignore[operator]
        assert asked == [True, False, True, True]


async def test_an_upstream_that_could_not_be_asked_for_usage_is_tried_again_later(
    autojump_clock: MockClock,
) -> None:
    refusal = error_answer(400, message="Unrecognized request argument: stream_options")
    counted, told = event_stream(TEXT, STOP, DONE), event_stream(TEXT, STOP, USAGE, DONE)
    async with bench(ONE, one=[refusal, counted, counted, told]) as b:
        await b.send(chat(stream=True))
        for later_s in (BELIEVED_S - 1, 1):
            await trio.sleep(later_s)
            await b.send(chat(stream=True))
        asked = [b"include_usage" in request.body for request in b.upstream.requests]  # type: ignore[operator]
        assert asked == [True, False, False, True]
        assert b.records[-1].output_tokens == 4


async def test_what_the_client_asked_for_itself_is_its_own_affair() -> None:
    refusal = error_answer(400, message="Unrecognized request argument: stream_options")
    async with bench(ONE, TWO, one=refusal, two=completion()) as b:
        request = chat(stream=True, stream_options={"include_usage": True})
        assert (await b.send(request)).status == 400
        assert len(b.upstream.requests) == 1
