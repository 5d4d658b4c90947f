"""The order in which candidates are asked: complete, in tiers, and in proportion."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import ne
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.selection import (
    CREDIT_GRANTS,
    STRATEGIES,
    STRETCH,
    Pool,
    Rendezvous,
    Selector,
    Strategy,
    key_hash,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NOW = 100.0


@dataclass
class Settings:
    name: str
    priority: int
    weight: int


@dataclass
class Load:
    share: float = 0.0
    read: int = 0

    def utilization(self, now: float) -> float:
        assert now == NOW
        self.read += 1
        return self.share


@dataclass
class Instance:
    config: Settings
    headroom: Load = field(default_factory=Load)


def instance(name: str, weight: int = 1, priority: int = 100, share: float = 0.0) -> Instance:
    return Instance(Settings(name, priority, weight), Load(share))


def make(strategy: Strategy, instances: Iterable[Instance], seed: int = 1) -> Pool[Instance]:
    return Selector(strategy, random.Random(seed)).pool(list(instances))


def names(pool: Pool[Instance]) -> list[str]:
    return [candidate.config.name for candidate in pool.order(NOW)]


def serve(
    pool: Pool[Instance], requests: int, fits: Callable[[str], bool] = lambda name: True
) -> list[str]:
    """Grants each request to the first in order that fits, as the router does."""
    granted = []
    for _ in range(requests):
        for candidate in pool.order(NOW):
            if fits(candidate.config.name):
                pool.granted(candidate.config.name)
                granted.append(candidate.config.name)
                break
    return granted


def shares(granted: list[str]) -> dict[str, float]:
    return {name: count / len(granted) for name, count in Counter(granted).items()}


rosters = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([0, 1, 2, 100, 1_000_000]),
        st.floats(0, 1.2),
    ),
    max_size=40,
).map(
    lambda rows: [
        instance(f"i{n}", weight, priority, share)
        for n, (priority, weight, share) in enumerate(rows)
    ]
)


@given(st.sampled_from(STRATEGIES), rosters, st.integers(0, 2**32), st.data())
def test_every_candidate_comes_exactly_once(
    strategy: Strategy, roster: list[Instance], seed: int, data: st.DataObject
) -> None:
    pool = make(strategy, roster, seed)
    expected = sorted(i.config.name for i in roster)
    assert [i.config.name for i in pool.candidates] == [i.config.name for i in roster]
    for _ in range(5):
        assert sorted(names(pool)) == expected
        if roster:
            pool.granted(data.draw(st.sampled_from(expected)))


@given(rosters, st.integers(0, 2**32))
def test_priority_orders_tiers_and_in_each_the_reserve_last(
    roster: list[Instance], seed: int
) -> None:
    order = [i.config for i in make("priority", roster, seed).order(NOW)]
    ranks = [(config.priority, config.weight == 0) for config in order]
    assert ranks == sorted(ranks)


@given(rosters, st.integers(0, 2**32))
def test_failover_is_by_priority_and_then_as_configured(roster: list[Instance], seed: int) -> None:
    pool = make("failover", roster, seed)
    expected = [i.config.name for i in sorted(roster, key=lambda i: i.config.priority)]
    assert names(pool) == expected
    serve(pool, 5, lambda name: name.endswith("1"))
    assert names(pool) == expected


@pytest.mark.parametrize("strategy", ["weighted", "round_robin", "least_loaded", "random"])
@given(roster=rosters, seed=st.integers(0, 2**32))
def test_other_strategies_see_one_tier_with_its_reserve_last(
    strategy: Strategy, roster: list[Instance], seed: int
) -> None:
    order = list(make(strategy, roster, seed).order(NOW))
    reserves = [i.config.weight == 0 for i in order]
    assert reserves == sorted(reserves)


@pytest.mark.parametrize("strategy", ["weighted", "round_robin", "least_loaded", "random"])
def test_other_strategies_disregard_priority(strategy: Strategy) -> None:
    roster = [instance("a", priority=1), instance("b", priority=2), instance("c", priority=3)]
    firsts = {next(make(strategy, roster, seed).order(NOW)).config.name for seed in range(50)}
    assert firsts == {"a", "b", "c"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_gives_the_same_choices(strategy: Strategy) -> None:
    def run() -> list[str]:
        roster = [instance(f"i{n}", n % 4, n % 3, n / 50) for n in range(30)]
        calls = iter(range(10**6))
        return serve(make(strategy, roster, 5), 200, lambda name: next(calls) % 3 != 0)

    assert run() == run()


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "failover"])
def test_a_reserve_serves_only_what_no_other_can_take(strategy: Strategy) -> None:
    pool = make(strategy, [instance("idle", 0), instance("b", 3), instance("c", 5)])
    assert "idle" not in serve(pool, 300)
    assert set(serve(pool, 30, lambda name: name == "idle")) == {"idle"}
    only = make(strategy, [instance("idle", 0), instance("spare", 0)])
    assert shares(serve(only, 2000))["spare"] == pytest.approx(0.5, abs=0.05)


WEIGHTS = {"a": 600, "b": 300, "c": 100}


@pytest.mark.parametrize(("strategy", "tolerance"), [("priority", 0.02), ("weighted", 0.005)])
def test_grants_are_in_proportion_to_weight(strategy: Strategy, tolerance: float) -> None:
    pool = make(strategy, [instance(name, weight) for name, weight in WEIGHTS.items()])
    granted = shares(serve(pool, 5000))
    for name, weight in WEIGHTS.items():
        assert granted[name] == pytest.approx(weight / 1000, abs=tolerance)


def test_weighted_is_smooth() -> None:
    pool = make("weighted", [instance("a", 3), instance("b", 1)])
    granted = serve(pool, 400)
    for start in range(0, 400, 4):
        assert granted[start : start + 4].count("b") == 1


def test_weighted_holds_its_proportions_when_instances_are_full_now_and_then() -> None:
    """Each is full for a while, at a different time: passed over, it makes up for it."""
    pool = make("weighted", [instance(name, weight) for name, weight in WEIGHTS.items()])
    granted: list[str] = []
    for full in ["a", "", "b", "", "c", ""] * 100:
        granted += serve(pool, 20, partial(ne, full))
    got = shares(granted)
    for name, weight in WEIGHTS.items():
        assert got[name] == pytest.approx(weight / 1000, abs=0.02)


def test_weighted_does_not_bury_an_instance_that_was_away_for_long() -> None:
    pool = make("weighted", [instance("a"), instance("b")])
    assert "a" not in serve(pool, 10_000, lambda name: name != "a")
    back = serve(pool, 10 * CREDIT_GRANTS)
    in_a_row = max(len(list(run)) for name, run in groupby(back) if name == "a")
    assert 2 <= in_a_row <= CREDIT_GRANTS
    assert shares(back[-CREDIT_GRANTS:])["a"] == pytest.approx(0.5, abs=0.01)


def test_priority_shares_what_a_full_instance_leaves_by_weight() -> None:
    pool = make("priority", [instance(name, weight) for name, weight in WEIGHTS.items()])
    granted = shares(serve(pool, 5000, lambda name: name != "a"))
    assert granted["b"] == pytest.approx(0.75, abs=0.02)
    assert granted["c"] == pytest.approx(0.25, abs=0.02)


def test_all_places_of_the_lottery_are_by_weight_among_those_left() -> None:
    """Beyond the draws that are made one by one, the order at once must be just as fair."""
    pool = make("priority", [instance(f"i{n}", n + 1) for n in range(8)])
    lasts: Counter[str] = Counter()
    seconds_after_heaviest: Counter[str] = Counter()
    for _ in range(20_000):
        order = names(pool)
        lasts[order[-1]] += 1
        if order[0] == "i7":
            seconds_after_heaviest[order[1]] += 1
    total = sum(seconds_after_heaviest.values())
    for n in range(7):
        assert seconds_after_heaviest[f"i{n}"] / total == pytest.approx((n + 1) / 28, abs=0.02)
    assert [name for name, _ in lasts.most_common()] == [f"i{n}" for n in range(8)]


def test_lower_tiers_take_only_the_overflow() -> None:
    pool = make("priority", [instance("paygo", priority=2), instance("ptu", priority=1)])
    assert set(serve(pool, 100)) == {"ptu"}
    assert set(serve(pool, 100, lambda name: name != "ptu")) == {"paygo"}


RING = {"a": 9, "b": 1, "c": 5, "d": 2}


def test_round_robin_gives_everyone_one_turn_per_round() -> None:
    pool = make("round_robin", [instance(name, weight) for name, weight in RING.items()])
    granted = serve(pool, 400)
    for start in range(0, 400, 4):
        assert set(granted[start : start + 4]) == set("abcd")


def test_round_robin_spreads_the_turns_of_a_full_one_over_all_others() -> None:
    pool = make("round_robin", [instance(name) for name in "abcd"])
    granted = serve(pool, 300, lambda name: name != "b")
    assert Counter(granted) == {"a": 100, "c": 100, "d": 100}


def test_round_robin_does_not_make_up_for_missed_turns() -> None:
    pool = make("round_robin", [instance(name) for name in "abcd"])
    serve(pool, 300, lambda name: name != "b")
    back = serve(pool, 40)
    assert all(9 <= turns <= 11 for turns in Counter(back).values())
    assert all(len(list(run)) == 1 for _, run in groupby(back))


def test_pools_made_together_do_not_all_begin_with_the_same_instance() -> None:
    roster = [instance(name) for name in "abcd"]
    for strategy in ("weighted", "round_robin"):
        selector = Selector(strategy, random.Random(3))
        firsts = Counter(next(selector.pool(roster).order(NOW)).config.name for _ in range(400))
        assert set(firsts) == set("abcd")
        assert max(firsts.values()) < 150


def test_least_loaded_asks_the_lowest_utilisation_first() -> None:
    by_load = [("b", 0.1), ("d", 0.2), ("a", 0.5), ("c", 0.9)]
    roster = [instance(name, share=share) for name, share in sorted(by_load)]
    for seed in range(20):
        assert names(make("least_loaded", roster, seed)) == [name for name, _ in by_load]


def test_least_loaded_follows_the_load() -> None:
    roster = [instance(f"i{n}") for n in range(10)]
    pool = make("least_loaded", roster)
    for _ in range(1000):
        chosen = next(iter(pool.order(NOW)))
        chosen.headroom.share += 0.001
    assert all(i.headroom.share == pytest.approx(0.1) for i in roster)


def test_least_loaded_spreads_idle_instances_evenly() -> None:
    pool = make("least_loaded", [instance(name) for name in "abcd"])
    firsts = shares([next(pool.order(NOW)).config.name for _ in range(4000)])
    assert all(share == pytest.approx(0.25, abs=0.03) for share in firsts.values())


def test_least_loaded_reads_few_of_many_and_still_balances() -> None:
    roster = [instance(f"i{n}") for n in range(100)]
    pool = make("least_loaded", roster)
    for _ in range(5000):
        chosen = next(iter(pool.order(NOW)))
        chosen.headroom.share += 0.001
    assert sum(i.headroom.read for i in roster) <= 5000 * STRETCH
    assert max(i.headroom.share for i in roster) <= 0.06
    roster[42].headroom.share = -1.0
    assert "i42" in names(pool)[:2]


def test_random_is_even_whatever_the_weights() -> None:
    pool = make("random", [instance("a", 1), instance("b", 1000), instance("c", 7)])
    for share in shares(serve(pool, 6000)).values():
        assert share == pytest.approx(1 / 3, abs=0.02)


def test_a_grant_while_iterating_repeats_nobody() -> None:
    for strategy in STRATEGIES:
        pool = make(strategy, [instance(name) for name in "abcdef"])
        seen = []
        for candidate in pool.order(NOW):
            seen.append(candidate.config.name)
            pool.granted(candidate.config.name)
        assert sorted(seen) == list("abcdef")


KEYS = [f"key-{n}".encode() for n in range(4000)]


def claims(key: bytes, weights: dict[str, int]) -> list[str]:
    ordered = Rendezvous([instance(name, weight) for name, weight in weights.items()])
    return [candidate.config.name for candidate in ordered.order(key_hash(key))]


def evenly(names: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(names, 1)


@given(st.binary(max_size=200), st.sets(st.text(max_size=20), max_size=20), st.randoms())
def test_claims_depend_on_the_set_of_names_only(
    key: bytes, members: set[str], rng: random.Random
) -> None:
    shuffled = sorted(members)
    rng.shuffle(shuffled)
    order = claims(key, evenly(shuffled))
    assert order == claims(key, evenly(sorted(members)))
    assert set(order) == members
    assert len(order) == len(members)


def test_claims_do_not_change_between_versions() -> None:
    """Keys that were bound to an instance before an upgrade must find it after."""
    assert claims(b"tenant-1", evenly(["east", "west", "north"])) == ["west", "north", "east"]


def test_a_new_instance_moves_only_the_keys_that_it_takes() -> None:
    old = [f"i{n}" for n in range(9)]
    moved = 0
    for key in KEYS:
        before, after = claims(key, evenly(old)), claims(key, evenly([*old, "new"]))
        assert [name for name in after if name != "new"] == before
        moved += after[0] == "new"
    assert moved / len(KEYS) == pytest.approx(0.1, abs=0.02)


def test_keys_are_shared_by_weight() -> None:
    weights = {"a": 600, "b": 300, "c": 100, "idle": 0}
    orders = [claims(key, weights) for key in KEYS]
    firsts = shares([order[0] for order in orders])
    assert firsts["a"] == pytest.approx(0.6, abs=0.02)
    assert firsts["b"] == pytest.approx(0.3, abs=0.02)
    assert firsts["c"] == pytest.approx(0.1, abs=0.02)
    assert all(order[-1] == "idle" for order in orders)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "failover"])
def test_a_key_prefers_one_instance_and_lists_all(strategy: Strategy) -> None:
    pool = make(strategy, [instance(name) for name in "abcdef"])
    orders = {
        tuple(c.config.name for c in pool.preferring(key_hash(b"tenant"), NOW)) for _ in range(5)
    }
    assert len(orders) == 1
    assert sorted(orders.pop()) == list("abcdef")


def test_a_key_does_not_reach_over_a_tier_nor_change_a_strict_order() -> None:
    roster = [instance("late", priority=900), instance("a"), instance("b")]
    for number in range(50):
        key = key_hash(b"%d" % number)
        assert [c.config.name for c in make("priority", roster).preferring(key, NOW)][2] == "late"
        strict = make("failover", roster)
        assert list(strict.preferring(key, NOW)) == list(strict.order(NOW))
