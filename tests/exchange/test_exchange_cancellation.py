"""Whatever a request is doing when it is cancelled, over real actors: no lease, no reservation and
no place in the waiting line is left over, and each answer of an upstream is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from cancelling import cancel_at_each_step
from chat_stream import DONE, ROLE, STOP, TEXT, USAGE
from fakes import FakeAnswer, FakeUpstream, FakeWriter, chat, completion, error_answer, event_stream
from harness import RunningSystem, instance_config, running_system

from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.ports import UpstreamFailure
from proxy.tokens.output import Allowance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

CONFIGS = (
    instance_config("one", priority=1, max_tpm=1000, provider_type="generic"),
    instance_config("two", priority=2, max_tpm=1000, provider_type="generic"),
)
RESET = UpstreamFailure("head", "reset", "connection reset")


def slowly(answer: FakeAnswer) -> FakeAnswer:
    """The same, a second for each piece."""
    answer.pieces = [(1.0, piece) for piece in answer.pieces if isinstance(piece, bytes)]
    return answer


class Bench:
    """An exchange over real actors; `send` makes one request."""

    def __init__(self, system: RunningSystem, upstream: FakeUpstream) -> None:
        self.system = system
        self.upstream = upstream
        self.exchange = Exchange(
            means=Means(system.leases, upstream, Allowance(), max_wait_s=100.0),
            models=ModelList(system.administration),
            keys=ClientKeys(()),
            max_running=100,
            record=lambda record: None,
        )

    async def send(self, **fields: Any) -> None:
        writer = FakeWriter()
        await self.exchange.handle(chat(max_tokens=600, **fields), writer)
        assert writer.status == 200, writer.body

    async def check(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        for config in CONFIGS:
            account = self.system.standing(config.name).account
            assert (account.leases, account.reserved_tokens) == ({}, 0)
        assert self.system.statistics().waiting == 0
        assert self.exchange.running == 0
        assert all(answer.closed for answer in self.upstream.answers)
        await trio.sleep(200)  # Windows are empty again, and breakers give another chance.


async def plain(bench: Bench) -> None:
    await bench.send()


async def stream(bench: Bench) -> None:
    await bench.send(stream=True)


async def together(bench: Bench) -> None:
    """The first is decided at once, the second in the actors' own tasks."""
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(bench.send)


async def waiting(bench: Bench) -> None:
    """Two fit at a time; the others wait until these are settled."""
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(bench.send)


EVENTS = event_stream(ROLE, TEXT, TEXT, STOP, USAGE, DONE)
SCENARIOS: dict[str, tuple[Callable[[Bench], Awaitable[None]], dict[str, Any]]] = {
    "plain": (plain, {"one": completion()}),
    "slow": (plain, {"one": slowly(completion())}),
    "failover": (plain, {"one": error_answer(500), "two": completion()}),
    "failover after a reset": (plain, {"one": RESET, "two": completion()}),
    "together": (together, {"one": completion(), "two": completion()}),
    "failover together": (together, {"one": error_answer(500), "two": completion()}),
    "stream": (stream, {"one": EVENTS}),
    "failover in a stream": (stream, {"one": event_stream(ROLE, failure=RESET), "two": EVENTS}),
    "waiting": (waiting, {"one": slowly(completion()), "two": slowly(completion())}),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_cancelled_anywhere(name: str, autojump_clock: MockClock) -> None:
    scenario, answers = SCENARIOS[name]
    async with running_system(*CONFIGS) as system:
        bench = Bench(system, FakeUpstream(**answers))
        steps = await cancel_at_each_step(lambda: scenario(bench), bench.check, everywhere=True)
    assert steps >= 10
