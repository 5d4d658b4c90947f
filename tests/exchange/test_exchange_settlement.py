"""What an attempt settles its lease at, whatever the way out: usage and charge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from chat_stream import DONE, ROLE, STOP, TEXT, USAGE
from fakes import (
    RESET,
    Answering,
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
from trio.testing import wait_all_tasks_blocked

from actors.messages import Evidence
from proxy.exchange.attempt import surface
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.ports import UpstreamFailure, UpstreamRequest
from proxy.exchange.record import RequestRecord
from proxy.tokens.output import DEFAULT_OUTPUT_TOKENS, Allowance

FILTER: dict[str, Any] = {"choices": [], "prompt_filter_results": []}
RUNNING_USAGE = {**TEXT, "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
ERROR = {"error": {"code": "server_error", "message": "m"}}
DELTA = {"type": "response.output_text.delta", "delta": "hi"}
SILENCE = (1e9, b"")

RULES = {"estimate": "azure", "actual": "generic"}


class Bench:
    """An exchange over real actors; `one` counts by `rule`, `two` is there for failover."""

    def __init__(self, system: RunningSystem, upstream: FakeUpstream) -> None:
        self.system = system
        self.records: list[RequestRecord] = []
        self.allowance = Allowance()
        self.means = Means(system.leases, upstream, self.allowance, max_wait_s=1.0)
        self.exchange = Exchange(
            means=self.means,
            models=ModelList(system.administration),
            keys=ClientKeys(()),
            max_running=10,
            record=self.records.append,
        )

    async def send(self, request: FakeRequest) -> None:
        await self.exchange.handle(request, FakeWriter())
        await wait_all_tasks_blocked()

    async def leave(self, request: FakeRequest, writer: FakeWriter | None = None) -> None:
        """The client goes away once nothing happens any more."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.exchange.handle, request, writer or FakeWriter())
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()

    @property
    def input_tokens(self) -> int:
        """As estimated."""
        assert self.records[0].demanded_input_tokens > 0
        return self.records[0].demanded_input_tokens

    @property
    def reserved(self) -> int:
        return self.records[0].trail[0].reserved_tokens

    def expect(self, used: int, *, charged: int) -> None:
        """Of the first attempt, in the books of its instance and on the request's record."""
        attempt = self.records[0].trail[0]
        account = self.system.standing("one").account
        assert attempt.instance == "one"
        assert attempt.settled_tokens == used
        assert account.usage.total(trio.current_time()) == used
        assert account.charge.total(trio.current_time()) == charged
        assert account.leases == {}


@asynccontextmanager
async def bench(one: Answering, rule: str = "actual", **fields: Any) -> AsyncIterator[Bench]:
    fields = {"provider_type": RULES[rule], "priority": 1, "max_tpm": 10_000, **fields}
    two = instance_config("two", priority=2, max_tpm=10_000)
    async with running_system(instance_config("one", **fields), two) as system:
        yield Bench(system, FakeUpstream(one=one, two=completion()))


def stream(**fields: Any) -> FakeRequest:
    return chat(stream=True, max_tokens=500, **fields)


def hanging(*events: Any) -> FakeAnswer:
    answer = event_stream(*events)
    answer.pieces = [*answer.pieces, SILENCE]
    return answer


async def never(request: UpstreamRequest) -> FakeAnswer:
    await trio.sleep_forever()
    raise AssertionError


rules = pytest.mark.parametrize("rule", ["estimate", "actual"])


@rules
@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (event_stream(FILTER, ROLE, *[TEXT] * 7, failure=RESET), 7),
        (event_stream(*[TEXT] * 7), 7),
        (event_stream(ROLE, TEXT, b'data: {"cho\n\n', TEXT), 1),
        (event_stream(ROLE, *[TEXT] * 3, ERROR, TEXT), 3),
    ],
)
async def test_a_stream_cut_short_by_its_upstream_has_used_what_was_counted(
    answer: FakeAnswer, output: int, rule: str
) -> None:
    """The upstream may have counted more by then, up to what was reserved."""
    async with bench(answer, rule) as b:
        await b.send(stream())
        b.expect(b.input_tokens + output, charged=b.reserved)
        assert b.reserved == b.input_tokens + 500
        # Nobody has said so: it is not reported as if somebody had.
        assert b.records[0].output_tokens is None
        assert b.records[0].trail[0].outcome.kind == "instance_error"


@rules
@pytest.mark.parametrize(
    ("events", "output"),
    [((FILTER, ROLE), 0), ((ROLE, *[TEXT] * 7), 7), ((ROLE, TEXT, STOP), 1)],
)
async def test_a_client_that_leaves_a_stream_has_used_what_was_counted(
    events: tuple[Any, ...], output: int, rule: str
) -> None:
    async with bench(hanging(*events), rule) as b:
        await b.leave(stream())
        b.expect(b.input_tokens + output, charged=b.reserved)
        outcome = b.records[0].trail[0].outcome
        assert (outcome.kind, outcome.request_id) == ("cancelled", b.records[0].id)
        assert b.system.standing("one").error_count == 0


async def test_of_a_response_the_deltas_are_counted() -> None:
    events = ({"type": "response.created"}, {"type": "response.output_item.added"}, DELTA, DELTA)
    async with bench(hanging(*events)) as b:
        body = b'{"model":"gpt-4","input":"hi","stream":true,"max_output_tokens":500}'
        await b.leave(FakeRequest("/v1/responses", [body]))
        b.expect(b.input_tokens + 2, charged=b.reserved)


@rules
@pytest.mark.parametrize("plain", [True, False])
async def test_a_client_that_leaves_before_the_answer_has_used_its_input(
    plain: bool, rule: str
) -> None:
    async with bench(never, rule) as b:
        await b.leave(chat(max_tokens=500) if plain else stream())
        b.expect(b.input_tokens, charged=b.reserved)


@rules
@pytest.mark.parametrize(
    ("answer", "used", "charged"),
    [
        (event_stream(ROLE, failure=RESET), "input", "reserved"),
        (FakeAnswer(pieces=[b'{"id":'], failure=RESET), "input", "reserved"),
        (UpstreamFailure("head", "timeout", "no answer"), "input", "reserved"),
        (UpstreamFailure("send", "reset", "reset"), "nothing", "reserved"),
        (UpstreamFailure("connect", "refused", "refused"), "nothing", "never"),
        (event_stream(ROLE, ERROR), "nothing", "by rule"),
        (error_answer(500), "nothing", "by rule"),
    ],
)
async def test_an_attempt_that_fails_over_settles_what_it_has_used(
    answer: Answering, used: str, charged: str, rule: str
) -> None:
    async with bench(answer, rule) as b:
        await b.send(stream())
        assert [attempt.instance for attempt in b.records[0].trail] == ["one", "two"]
        charges = {"reserved": b.reserved, "never": 0}
        by_rule = b.reserved if rule == "estimate" else 0
        b.expect(b.input_tokens if used == "input" else 0, charged=charges.get(charged, by_rule))
        assert b.records[0].trail[1].settled_tokens == 12


@rules
async def test_usage_that_was_seen_is_what_counts(rule: str) -> None:
    async with bench(hanging(TEXT, STOP, USAGE), rule) as b:
        await b.leave(stream())
        b.expect(13, charged=b.reserved if rule == "estimate" else 13)
        assert (b.records[0].input_tokens, b.records[0].output_tokens) == (9, 4)


async def test_usage_that_is_reported_all_along_may_not_be_all_of_it() -> None:
    async with bench(event_stream(TEXT, RUNNING_USAGE, failure=RESET)) as b:
        await b.send(stream())
        b.expect(11, charged=b.reserved)


async def test_a_plain_answer_that_nobody_takes_any_more_has_told_its_usage() -> None:
    async def hang(data: bytes) -> None:
        await trio.sleep_forever()

    async with bench(completion()) as b:
        await b.leave(chat(max_tokens=500), FakeWriter(hang))
        b.expect(12, charged=12)


@rules
async def test_a_client_that_leaves_while_it_is_refused_has_used_nothing(rule: str) -> None:
    refusal = error_answer(400)
    refusal.pieces = [*refusal.pieces, SILENCE]
    async with bench(refusal, rule) as b:
        await b.leave(stream())
        b.expect(0, charged=b.reserved if rule == "estimate" else 0)


async def test_a_request_that_can_not_be_sent_costs_nothing() -> None:
    async with bench(never, "estimate", model_deployments={"gpt-4": ".."}) as b:
        await b.send(stream())
        assert b.records[0].status == 404
        b.expect(0, charged=0)


@pytest.mark.parametrize("answer", [never, hanging(ROLE, *[TEXT] * 7)])
async def test_what_a_stop_interrupts_is_in_the_last_state(answer: Answering) -> None:
    async with bench(answer) as b, trio.open_nursery() as nursery:
        nursery.start_soon(b.exchange.handle, stream(), FakeWriter())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        # Its settlement is posted; the instance's task will not get to it.
    output = 0 if answer is never else 7
    state = b.system.state_store.saved["one"]
    assert state["current_tpm"] == b.input_tokens + output
    assert state["utilization_percentage"] == b.reserved / 100


async def test_a_whole_stream_without_usage_has_used_what_was_counted() -> None:
    """But that teaches nothing, and frees nothing: it was asked for, and did not come."""
    async with bench(event_stream(ROLE, *[TEXT] * 7, STOP, DONE)) as b:
        await b.send(stream())
        b.expect(b.input_tokens + 7, charged=b.reserved)
        assert b.allowance.expected("gpt-4") == DEFAULT_OUTPUT_TOKENS


SEEN = Evidence(10_000, 9000, None, None)
SEEN_HEADERS = [
    (b"x-ratelimit-limit-tokens", b"10000"),
    (b"x-ratelimit-remaining-tokens", b"9000"),
]


@pytest.mark.parametrize(
    "answer",
    [
        completion(),
        event_stream(ROLE, TEXT, STOP, USAGE, DONE),
        event_stream(ROLE, TEXT, failure=RESET),
        event_stream(ROLE, ERROR),
        FakeAnswer(pieces=[b'{"id":'], failure=RESET),
        error_answer(429),
    ],
)
async def test_what_an_answer_said_of_limits_is_on_the_record(answer: FakeAnswer) -> None:
    answer = replace(answer, headers=[*answer.headers, *SEEN_HEADERS])
    async with bench(answer) as b:
        await b.send(stream())
        assert b.records[0].trail[0].evidence == SEEN


async def test_what_a_stream_said_of_limits_is_learned_while_it_goes_on() -> None:
    answer = hanging(ROLE, TEXT)
    answer.headers = [*answer.headers, *SEEN_HEADERS]
    async with bench(answer, max_tpm=20_000) as b, trio.open_nursery() as nursery:
        nursery.start_soon(b.exchange.handle, stream(), FakeWriter())
        await wait_all_tasks_blocked()
        standing = b.system.standing("one")
        assert standing.account.leases
        assert standing.capacity.quotas["gpt-4"].limit.value(trio.current_time()) == 10_000
        nursery.cancel_scope.cancel()


async def test_estimates_are_compared_with_what_is_reported() -> None:
    async with bench(completion(input_tokens=9)) as b:
        await b.send(stream())
        compared = b.means.estimates.snapshot()["gpt-4"]
        assert (compared.requests, compared.actual_tokens) == (1, 9)
        assert compared.estimated_tokens == b.input_tokens


async def test_what_kept_others_from_taking_it_is_on_the_record() -> None:
    async with bench(completion(), "estimate") as b:
        await b.send(stream(n=19))
        await b.send(stream(n=2))
        await b.send(stream(n=100))
        (first,), (second,), none = (record.trail for record in b.records)
        assert (first.instance, dict(first.met)) == ("one", {})
        assert second.instance == "two"
        assert [(name, o.reason) for name, o in second.met.items()] == [("one", "no_headroom")]
        assert none == []
        refused = b.records[2].refused
        assert refused is not None
        assert refused.reason == "too_large"
        assert {name: o.reason for name, o in refused.met.items()} == {
            "one": "too_large",
            "two": "too_large",
        }


async def test_where_usage_can_not_be_asked_for_the_count_is_taken_for_it() -> None:
    async with bench(event_stream(ROLE, *[TEXT] * 7, STOP, DONE)) as b:
        b.means.unaskable.note(surface(b.system.standing("one").config), trio.current_time())
        await b.send(stream())
        b.expect(b.input_tokens + 7, charged=b.input_tokens + 7)
        assert b.allowance.expected("gpt-4") == 7


async def test_what_is_learned_is_the_output_of_one_answer() -> None:
    async with bench(completion(output_tokens=805)) as b:
        await b.send(chat(max_tokens=500, n=8))
        assert b.allowance.expected("gpt-4") == 101
