"""What must hold whatever happens: limits, the ledger, one outcome each, and repeatability."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from world import MINUTE_S, TPM, Client, Traffic, World, run_world

from proxy.exchange.record import RequestRecord


def check(world: World) -> None:
    assert world.left_over == []
    check_limits(world)
    check_outcomes(world)


def check_limits(world: World) -> None:
    """No sliding minute holds more reservations than the limit, wherever it begins.

    What turned out never to have reached the upstream counts until that was known.
    """
    for name, limit in TPM.items():
        reservations = sorted(world.reservations[name].values(), key=lambda r: r.at)
        first = 0
        for index, newest in enumerate(reservations):
            while reservations[first].at <= newest.at - MINUTE_S:
                first += 1
            held = sum(
                r.tokens for r in reservations[first : index + 1] if r.given_back_at > newest.at
            )
            assert held <= limit, f"{name} at {newest.at}: {held} of {limit} tokens"


def check_outcomes(world: World) -> None:
    records = {record.id: record for record in world.records}
    assert len(records) == len(world.records), "one record each"
    assert records.keys() == world.clients.keys()
    for name, client in world.clients.items():
        check_answer(client, records[name])


def check_answer(client: Client, record: RequestRecord) -> None:
    writer = client.writer
    assert client.answered is not client.left
    if client.left:
        assert not writer.finished or record.status != 499
        return
    assert writer.started
    assert writer.finished is not writer.aborted
    assert writer.status == record.status
    assert record.status in (200, 429, 500, 502, 503, 504)
    if writer.aborted:
        return
    if writer.status == 200 and client.stream:
        last = writer.body.rstrip().rpartition(b"\n\n")[2]
        assert last == b"data: [DONE]" or last.startswith(b"event: error")
    else:
        assert ("error" in json.loads(writer.body)) is (writer.status != 200)


def check_that_it_was_a_test(world: World) -> None:
    """Traffic enough to fill every instance, and everything that can go wrong went wrong."""
    full = {
        name: sum(r.tokens for r in world.reservations[name].values())
        / (TPM[name] * world.traffic.minutes)
        for name in TPM
    }
    assert min(full.values()) > 0.5, full
    kinds = Counter((actor == "router", kind) for _, actor, kind, _ in world.trace)
    assert kinds[True, "Declined"] > 10
    assert kinds[True, "CapacityFreed"] > 10
    assert kinds[True, "Withdraw"] > 0
    assert world.crashes > 10
    assert {200, 429, 499} <= world.statuses.keys()


@pytest.mark.parametrize("seed", [1])
def test_ten_minutes_and_the_same_again(seed: int) -> None:
    first, again = run_world(seed, Traffic()), run_world(seed, Traffic())
    check(first)
    check_that_it_was_a_test(first)
    assert first.trace == again.trace, f"seed {seed} does not reproduce its run"


def any_traffic(seed: int, minutes: float) -> Traffic:
    rng = random.Random(f"{seed}/kind")
    return Traffic(
        minutes=minutes,
        per_min=rng.choice([20.0, 60.0, 120.0]),
        leaving=rng.choice([0.0, 0.2, 0.8]),
        crashing=rng.choice([0.0, 0.01, 0.1]),
        failing=rng.choice([0.0, 0.01, 0.1]),
    )


# Without shrinking: a smaller seed is no simpler.
@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_other_seeds_and_other_traffic(seed: int) -> None:
    check(run_world(seed, any_traffic(seed, minutes=2.0)))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
def test_many_seeds(seed: int) -> None:
    traffic = any_traffic(seed, minutes=10.0)
    first, again = run_world(seed, traffic), run_world(seed, traffic)
    check(first)
    assert first.trace == again.trace
