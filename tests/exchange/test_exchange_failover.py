"""Failures that another instance absorbs, how often, and what is told if none does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from chat_stream import TEXT
from exchange_bench import ONE, TWO, Bench, bench
from fakes import (
    REFUSED,
    RESET,
    FakeAnswer,
    FakeRequest,
    FakeWriter,
    chat,
    completion,
    error_answer,
    event_stream,
)
from harness import instance_config
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.exchange.missing_operations import MISSING_S
from proxy.exchange.ports import UpstreamFailure, UpstreamRequest


@pytest.mark.parametrize(
    "failure", [REFUSED, RESET, error_answer(500), error_answer(503), error_answer(408)]
)
async def test_a_failing_instance_is_absorbed_by_another(failure: Any) -> None:
    async with bench(ONE, TWO, one=failure, two=completion()) as b:
        writer = await b.send(chat())
        assert writer.status == 200
        assert writer.header(b"x-proxy-instance") == b"two"
        assert b.records[0].attempts == 2
        assert b.system.standing("one").error_count == 1


async def test_a_rate_limit_benches_and_the_next_request_goes_elsewhere_at_once() -> None:
    limited = error_answer(429, "429", headers=[(b"retry-after-ms", b"5000")])
    async with bench(ONE, TWO, one=limited, two=completion()) as b:
        await b.send(chat())
        await b.send(chat())
        assert [request.config.name for request in b.upstream.requests] == ["one", "two", "two"]
        assert b.system.standing("one").status(trio.current_time()) == "rate_limited"


@pytest.mark.parametrize(
    "answer",
    [
        error_answer(400, "content_filter"),
        error_answer(400, "context_length_exceeded"),
        error_answer(404, "not_found"),
        error_answer(413),
        error_answer(422),
    ],
)
async def test_the_clients_own_error_comes_back_as_it_is_and_hurts_nobody(
    answer: FakeAnswer,
) -> None:
    async with bench(ONE, TWO, one=answer, two=completion()) as b:
        writer = await b.send(chat())
        assert writer.status == answer.status
        assert writer.body == b"".join(answer.pieces)  # type: ignore[arg-type]
        assert len(b.upstream.requests) == 1
        standing = b.system.standing("one")
        assert standing.error_count == 0
        assert standing.status(trio.current_time()) == "healthy"


async def test_refused_credentials_fail_over_and_are_not_blamed_on_the_client() -> None:
    async with bench(ONE, TWO, one=error_answer(401, "401"), two=completion()) as b:
        assert (await b.send(chat())).status == 200
        assert b.system.standing("one").status(trio.current_time()) == "error"
    async with bench(ONE, one=error_answer(401, "401")) as b:
        writer = await b.send(chat())
        assert writer.status == 502
        assert writer.error()["code"] == "upstream_authentication_failed"


async def test_a_limit_is_not_met_twice_while_another_instance_is_eligible() -> None:
    # Its bench is over before the next attempt begins.
    limited = error_answer(429, "429", headers=[(b"retry-after-ms", b"0.001")])
    failing = error_answer(500)
    three = instance_config("three", priority=3, max_tpm=100_000)
    async with bench(ONE, TWO, three, one=limited, two=failing, three=completion()) as b:
        assert (await b.send(chat())).status == 200
        assert [request.config.name for request in b.upstream.requests] == ["one", "two", "three"]


async def test_an_operation_that_an_instance_does_not_have_is_asked_of_it_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    old = error_answer(404, "404", "Resource not found")
    async with bench(ONE, TWO, one=old, two=completion()) as b:
        for _ in range(3):
            assert (await b.send(chat(path="/v1/responses"))).status == 200
        await b.send(chat())  # what else it has is asked of it as before
        asked = [request.config.name for request in b.upstream.requests]
        assert asked == ["one", "two", "two", "two", "one", "two"]
        assert b.system.standing("one").status(trio.current_time()) == "healthy"
        assert b.system.standing("one").error_count == 0
        await trio.sleep(MISSING_S)
        await b.send(chat(path="/v1/responses"))
        assert b.upstream.requests[-2].config.name == "one"
    async with bench(ONE, one=old) as b:
        for _ in range(2):
            assert (await b.send(chat())).status == 404


async def test_requests_with_a_common_key_meet_the_same_instance() -> None:
    names = ["a", "b", "c", "d"]
    configs = [instance_config(name, max_tpm=10**6) for name in names]
    async with bench(*configs, **{name: completion() for name in names}) as b:
        for key in ("k1", "k2", "k3"):
            for _ in range(4):
                await b.send(chat(prompt_cache_key=key))
            assert len({request.config.name for request in b.upstream.requests[-4:]}) == 1


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_an_error_that_quotes_the_key_is_passed_on_without_it(
    status: int, autojump_clock: MockClock
) -> None:
    quoting = error_answer(status, "x", f"Not with {ONE.api_key}!")
    in_stream = {"type": "error", "error": {"code": str(status), "message": ONE.api_key}}
    config = instance_config("one", retry_count=0, max_tpm=100_000)
    async with bench(config, one=[quoting, event_stream(in_stream)]) as b:
        for stream in (False, True):
            writer = await b.send(chat(stream=stream))
            assert writer.status == status
            assert ONE.api_key.encode() not in writer.body
            assert "***" in writer.error()["message"]
            await trio.sleep(20)


@pytest.mark.parametrize("together", [True, False])
async def test_an_error_event_that_quotes_the_key_is_passed_on_without_it(together: bool) -> None:
    error = {"error": {"code": "500", "message": f"Not with {ONE.api_key}!"}}
    text, quoting = (b"data: " + json.dumps(event).encode() + b"\n\n" for event in (TEXT, error))
    pieces = [text + quoting] if together else [text, quoting]
    answer = FakeAnswer(200, [(b"content-type", b"text/event-stream")], pieces)
    async with bench(ONE, one=answer) as b:
        writer = await b.send(chat(stream=True))
        assert b"Not with ***!" in writer.body
        assert ONE.api_key.encode() not in writer.body


async def test_retries_end_at_retry_count() -> None:
    configs = [instance_config(f"i{n}", retry_count=2, max_tpm=10**6) for n in range(5)]
    answers = {config.name: error_answer(500, "InternalServerError") for config in configs}
    async with bench(*configs, **answers) as b:
        writer = await b.send(chat())
        assert writer.status == 500
        assert len(b.upstream.requests) == 3
        assert len({request.config.name for request in b.upstream.requests}) == 3
        assert writer.header(b"x-proxy-attempts") == b"3"


async def hang_then_fail(request: UpstreamRequest) -> FakeAnswer:
    """So that all fail before the first failure is known."""
    await trio.sleep(20)
    raise UpstreamFailure("head", "timeout", "nothing came in time")


async def complete(request: UpstreamRequest) -> FakeAnswer:
    return completion()


async def send_many(b: Bench, count: int) -> list[FakeWriter]:
    writers = [FakeWriter() for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for writer in writers:
            nursery.start_soon(b.exchange.handle, chat(), writer)
    await wait_all_tasks_blocked()
    return writers


async def test_a_sound_instance_takes_all_that_another_fails(autojump_clock: MockClock) -> None:
    """However large their share: the retry budget is for outages, and this is none."""
    async with bench(ONE, TWO, one=hang_then_fail, two=complete) as b:
        writers = await send_many(b, 90)
        assert [writer.status for writer in writers] == [200] * 90


async def test_without_a_budget_a_retry_passes_over_who_has_just_failed() -> None:
    three = instance_config("three", priority=3, max_tpm=100_000)
    failing = error_answer(500, "InternalServerError")
    async with bench(ONE, TWO, three, one=failing, two=failing, three=completion()) as b:
        while b.means.retry_budget.take(trio.current_time()):
            pass
        for attempts in (b"3", b"2"):
            writer = await b.send(chat())
            assert writer.header(b"x-proxy-instance") == b"three"
            assert b.records[-1].attempts == int(attempts)


async def test_an_instance_that_has_just_failed_gets_no_more_retries_than_the_budget_has() -> None:
    failing = error_answer(503, "ServiceUnavailable")
    async with bench(ONE, TWO, one=failing, two=error_answer(500, "x")) as b:
        while b.means.retry_budget.take(trio.current_time()):
            pass
        assert (await b.send(chat())).header(b"x-proxy-attempts") == b"2"
        refused = await b.send(chat())
        assert (refused.status, refused.header(b"x-proxy-attempts")) == (503, b"1")
        assert b.system.standing("two").error_count == 1


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (REFUSED, 502, "upstream_unreachable"),
        (UpstreamFailure("head", "timeout", "60 s"), 504, "upstream_timeout"),
    ],
)
async def test_without_any_answer_the_client_is_told_in_our_words(
    failure: UpstreamFailure, status: int, code: str
) -> None:
    async with bench(ONE, one=failure) as b:
        writer = await b.send(chat())
        assert (writer.status, writer.error()["code"]) == (status, code)


FORM = (
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
    + b"\x00\xff" * 700_000
    + b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
)


async def test_an_upload_is_streamed_and_repeated_elsewhere_from_its_start() -> None:
    received: list[bytes] = []

    async def consume(request: UpstreamRequest) -> FakeAnswer:
        body = b""
        while piece := await request.body.read_chunk():  # type: ignore[union-attr]
            body += piece
        received.append(body)
        return completion() if request.config.name == "two" else error_answer(500)

    one = instance_config("one", priority=1, supported_models=["whisper"])
    two = instance_config(
        "two",
        provider_type="generic",
        priority=2,
        supported_models=["whisper"],
        model_deployments={"whisper": "whisper-large"},
    )
    request = FakeRequest(
        "/v1/audio/transcriptions",
        [FORM[start : start + 100_000] for start in range(0, len(FORM), 100_000)],
        headers=[
            (b"content-type", b"multipart/form-data; boundary=b"),
            (b"content-length", b"%d" % len(FORM)),
        ],
    )
    async with bench(one, two, one=consume, two=consume) as b:
        assert (await b.send(request)).status == 200
        assert received == [FORM, FORM.replace(b"\r\nwhisper\r\n", b"\r\nwhisper-large\r\n")]
        assert b.upstream.requests[1].body.length == len(FORM) + 6  # type: ignore[union-attr]
