from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from fakes import (
    REFUSED,
    RESET,
    FakeAnswer,
    FakeRequest,
    FakeUpstream,
    FakeWriter,
    chat,
    completion,
    error_answer,
    event_stream,
)
from harness import RunningSystem, instance_config, running_system
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.missing_operations import MISSING_S
from proxy.exchange.models import ModelList
from proxy.exchange.ports import UpstreamFailure, UpstreamRequest
from proxy.exchange.record import RequestRecord
from proxy.exchange.unaskable import BELIEVED_S
from proxy.tokens.output import Allowance

ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
TEXT = {"choices": [{"index": 0, "delta": {"content": "hi"}}]}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
DONE = b"data: [DONE]\n\n"


class Bench:
    """An exchange over real actors and a fake upstream."""

    def __init__(
        self, system: RunningSystem, upstream: FakeUpstream, keys: tuple[str, ...]
    ) -> None:
        self.system = system
        self.upstream = upstream
        self.records: list[RequestRecord] = []
        self.means = Means(system.leases, upstream, Allowance(), max_wait_s=10.0)
        self.exchange = Exchange(
            means=self.means,
            models=ModelList(system.administration),
            keys=ClientKeys(keys),
            max_running=100,
            record=self.records.append,
        )

    async def send(self, request: FakeRequest, writer: FakeWriter | None = None) -> FakeWriter:
        writer = writer or FakeWriter()
        await self.exchange.handle(request, writer)
        await wait_all_tasks_blocked()
        return writer


@asynccontextmanager
async def bench(*configs: Any, keys: tuple[str, ...] = (), **answers: Any) -> AsyncIterator[Bench]:
    async with running_system(*configs) as system:
        yield Bench(system, FakeUpstream(**answers), keys)
        for config in configs:
            if config.name in system.supervisor._children:
                assert system.standing(config.name).account.leases == {}


ONE = instance_config("one", priority=1, max_tpm=100_000)
TWO = instance_config("two", priority=2, max_tpm=100_000)


async def test_an_answer_passes_byte_for_byte_with_its_headers() -> None:
    answer = completion()
    answer.headers = [
        (b"content-type", b"application/json"),
        (b"x-ratelimit-remaining-tokens", b"77"),
        (b"x-request-id", b"theirs"),
        (b"set-cookie", b"a=b"),
        (b"connection", b"keep-alive"),
    ]
    async with bench(ONE, one=answer) as b:
        writer = await b.send(chat())
        assert writer.status == 200
        assert writer.body == b"".join(answer.pieces)  # type: ignore[arg-type]
        assert dict(writer.headers) == {
            b"content-type": b"application/json",
            b"x-ratelimit-remaining-tokens": b"77",
            b"x-upstream-request-id": b"theirs",
            b"x-proxy-instance": b"one",
            b"x-request-id": b.records[0].id.encode(),
        }
        assert b.upstream.answers[0].closed
        standing = b.system.standing("one")
        assert standing.successful_requests == 1
        assert standing.account.usage.total(trio.current_time()) == 12


async def test_the_request_reaches_azure_as_it_came_with_its_own_key() -> None:
    config = instance_config("one", model_deployments={"gpt-4": "my deployment"}, max_tpm=10**6)
    async with bench(config, one=completion()) as b:
        request = chat(temperature=0.5)
        request.headers = [
            (b"authorization", b"Bearer client"),
            (b"api-key", b"client"),
            (b"cookie", b"c"),
            (b"x-stainless-lang", b"python"),
            (b"content-type", b"application/json"),
            (b"connection", b"close, x-secret"),
            (b"x-secret", b"1"),
        ]
        await b.send(request)
        sent = b.upstream.requests[0]
        assert sent.url == (
            "https://one.openai.azure.com/openai/deployments/my%20deployment/chat/completions"
            "?api-version=2024-10-21"
        )
        assert sent.body == request.pieces[0]
        assert dict(sent.headers) == {
            b"content-type": b"application/json",
            b"accept-encoding": b"identity",
            b"api-key": config.api_key.encode(),
        }


async def test_a_generic_instance_gets_its_own_model_name_in_the_body() -> None:
    config = instance_config(
        "one", provider_type="generic", api_base="http://llm", model_deployments={"gpt-4": "llama"},
        max_tpm=10**6,
    )  # fmt: skip
    async with bench(config, one=completion()) as b:
        request = chat(temperature=1.0)
        await b.send(request)
        sent = b.upstream.requests[0]
        assert sent.url == "http://llm/v1/chat/completions"
        assert sent.body == request.pieces[0].replace(b'"gpt-4"', b'"llama"')
        assert dict(sent.headers)[b"authorization"] == b"Bearer " + config.api_key.encode()


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


async def test_the_priority_of_a_request_decides_its_place_in_the_line(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = instance_config("one", max_tpm=100)
    async with bench(config, one=completion(input_tokens=90, output_tokens=10)) as b:
        await b.send(chat(max_tokens=80))
        await trio.sleep(55)
        async with trio.open_nursery() as nursery:
            for identity, priority in ((b"late", b"200"), (b"early", b"1")):
                request = chat(max_tokens=80)
                request.headers += [(b"x-priority", priority), (b"x-request-id", identity)]
                nursery.start_soon(b.send, request)
                await trio.sleep(0.1)
        outcomes = {record.id: record.status for record in b.records[1:]}
        assert outcomes == {"early": 200, "late": 429}


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


async def test_a_plain_answer_is_bounded_as_a_whole(autojump_clock: trio.testing.MockClock) -> None:
    slow = FakeAnswer(pieces=[(25.0, b"x")] * 10)
    config = instance_config("one", timeout_seconds=60.0, max_tpm=10**6)
    async with bench(config, one=slow) as b:
        started = trio.current_time()
        writer = await b.send(chat())
        assert (writer.status, trio.current_time() - started) == (504, 60.0)
        assert b.upstream.answers[0].closed


async def test_a_client_that_leaves_costs_nobody_anything() -> None:
    entered = trio.Event()

    async def hang(request: UpstreamRequest) -> FakeAnswer:
        entered.set()
        await trio.sleep_forever()

    async with bench(ONE, one=hang) as b:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.exchange.handle, chat(), FakeWriter())
            await entered.wait()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert b.system.standing("one").error_count == 0
        assert b.records[0].status == 499


async def test_saturation_is_told_with_a_time_that_is_true(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = instance_config("one", max_tpm=100)
    async with bench(config, one=completion(input_tokens=90, output_tokens=10)) as b:
        assert (await b.send(chat(max_tokens=80))).status == 200
        refused = await b.send(chat(max_tokens=80))
        assert refused.status == 429
        assert refused.error()["code"] == "rate_limit_exceeded"
        wait_ms = int(refused.header(b"retry-after-ms") or 0)
        assert int(refused.header(b"retry-after") or 0) * 1000 >= wait_ms
        assert 49_000 <= wait_ms <= 60_200
        await trio.sleep(wait_ms / 1000)
        assert (await b.send(chat(max_tokens=80))).status == 200


async def test_a_request_waits_for_capacity_that_is_coming(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = instance_config("one", max_tpm=100)
    async with bench(config, one=completion(input_tokens=90, output_tokens=10)) as b:
        await b.send(chat(max_tokens=80))
        await trio.sleep(55)
        started = trio.current_time()
        assert (await b.send(chat(max_tokens=80))).status == 200
        assert 4.9 <= trio.current_time() - started <= 5.3


@pytest.mark.parametrize(
    ("request_", "status", "code", "param"),
    [
        (chat(model="nope"), 404, "model_not_found", "model"),
        (FakeRequest(pieces=[b'{"messages":[]}']), 400, "missing_model", "model"),
        (FakeRequest(pieces=[b'{"model":7}']), 400, None, "model"),
        (FakeRequest(pieces=[b'{"model":""}']), 400, None, "model"),
        (chat(stream="yes"), 400, None, "stream"),
        (chat(max_tokens="5"), 400, None, "max_tokens"),
        (chat(max_completion_tokens=0), 400, None, "max_completion_tokens"),
        (chat(max_tokens=True), 400, None, "max_tokens"),
        (FakeRequest(pieces=[b"{nope"]), 400, None, None),
        (FakeRequest(pieces=[b"[1]"]), 400, None, None),
        (FakeRequest(pieces=[]), 400, None, None),
        (FakeRequest(pieces=[b"x" * 10], limit=5), 413, "request_too_large", None),
        (FakeRequest("/v1/nothing", [b"{}"]), 404, "unknown_url", None),
        (FakeRequest(method="GET"), 405, "method_not_allowed", None),
    ],
)
async def test_bad_requests_get_errors_in_openais_shape(
    request_: FakeRequest, status: int, code: str | None, param: str | None
) -> None:
    async with bench(ONE, one=completion()) as b:
        writer = await b.send(
            FakeRequest(
                **{  # the parameters are shared between runs
                    name: getattr(request_, name)
                    for name in ("path", "pieces", "method", "headers", "limit")
                }
            )
        )
        error = writer.error()
        assert writer.status == status
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["code"], error["param"]) == (code, param)
        assert b.upstream.requests == []


async def test_client_keys_are_asked_for_when_there_are_any() -> None:
    async with bench(ONE, keys=("sk-good", "sk-other"), one=completion()) as b:
        for header, status in [
            ((b"authorization", b"Bearer sk-good"), 200),
            ((b"authorization", b"bearer sk-other"), 200),
            ((b"api-key", b"sk-good"), 200),
            ((b"api-key", b"sk-bad"), 401),
            ((b"authorization", b"Basic sk-good"), 401),
            ((b"x-nothing", b""), 401),
        ]:
            request = chat()
            request.headers = [header]
            assert (await b.send(request)).status == status


@pytest.mark.parametrize(
    "path", ["/v1/models", "/openai/v1/models", "/openai/models", "/v1/models/gpt-4"]
)
async def test_models_are_those_of_enabled_instances(path: str) -> None:
    off = instance_config("off", enabled=False, supported_models=["hidden"])
    async with bench(ONE, off, one=completion()) as b:
        writer = await b.send(FakeRequest(path, method="GET"))
        listed = json.loads(writer.body)
        models = listed["data"] if listed["object"] == "list" else [listed]
        assert [model["id"] for model in models] == ["gpt-4"]
        hidden = await b.send(FakeRequest("/v1/models/hidden", method="GET"))
        assert (hidden.status, hidden.error()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/openai/v1/chat/completions",
        "/openai/deployments/gpt-4/chat/completions",
    ],
)
async def test_an_operation_is_the_same_at_every_address(path: str) -> None:
    async with bench(ONE, one=completion()) as b:
        assert (await b.send(chat(path=path))).status == 200


async def test_the_request_id_of_the_client_is_kept_if_it_is_harmless() -> None:
    async with bench(ONE, one=completion()) as b:
        for given, kept in [(b"abc-1", True), (b"a b", False), (b"x" * 65, False)]:
            request = chat()
            request.headers.append((b"x-request-id", given))
            writer = await b.send(request)
            assert (writer.header(b"x-request-id") == given) is kept


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
