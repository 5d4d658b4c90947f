from __future__ import annotations

from actors.clock import WallClock
from actors.messages import LeaseId
from actors.policy.benches import DEFAULT_BENCH_S, LEAST_S, PROBE_S, Benches
from actors.policy.headroom import Obstacle

MODEL = "gpt-4"


def free_at(benches: Benches, now: float) -> bool:
    return benches.limited(MODEL, now) is None


def test_after_a_bench_one_goes_first_and_the_others_once_it_was_not_refused() -> None:
    benches = Benches()
    benches.limit(MODEL, LeaseId(1), 7.0, 0.0)
    assert not free_at(benches, 6.9)
    assert free_at(benches, 7.0)
    benches.granted(MODEL, LeaseId(2), 7.0)
    found = benches.limited(MODEL, 7.1)
    assert found is not None
    assert (found.reason, found.until) == ("rate_limited", 7.0 + PROBE_S)
    for number in range(3, 10):
        assert free_at(benches, 7.0 + PROBE_S)
        benches.granted(MODEL, LeaseId(number), 7.0 + PROBE_S)


def test_a_hint_that_turns_out_wrong_again_and_again_is_doubted_more_and_more() -> None:
    benches, now, times = Benches(), 0.0, []
    benches.limit(MODEL, LeaseId(0), 5.0, now)
    for number in range(1, 8):
        limited = benches.limited(MODEL, now)
        assert limited is not None
        assert limited.until is not None
        times.append(limited.until - now)
        now = limited.until
        benches.granted(MODEL, LeaseId(number), now)
        benches.limit(MODEL, LeaseId(number), 0.0, now)
    assert times == [5.0, LEAST_S, 2.0, 4.0, 8.0, DEFAULT_BENCH_S, DEFAULT_BENCH_S]


def test_refusals_of_what_was_sent_before_are_no_failed_probe() -> None:
    benches = Benches()
    for number in range(20):
        benches.limit(MODEL, LeaseId(number), 2.0, 0.0)
    assert free_at(benches, 2.0)


def test_a_bench_that_begins_while_a_probe_is_out_ends_with_another_one() -> None:
    benches = Benches()
    benches.limit(MODEL, LeaseId(1), 2.0, 0.0)
    benches.granted(MODEL, LeaseId(2), 2.5)  # the probe
    benches.limit(MODEL, LeaseId(3), 20.0, 2.6)  # of what was sent before
    benches.granted(MODEL, LeaseId(4), 23.0)
    assert benches.limited(MODEL, 23.0) == Obstacle("rate_limited", 23.0 + PROBE_S)


def test_who_recovers_begins_anew() -> None:
    benches = Benches()
    benches.limit(MODEL, LeaseId(0), 1.0, 0.0)
    benches.granted(MODEL, LeaseId(1), 1.0)
    benches.limit(MODEL, LeaseId(1), 0.0, 1.0)
    now = 1.0 + LEAST_S
    benches.granted(MODEL, LeaseId(2), now)
    benches.granted(MODEL, LeaseId(3), now + PROBE_S)
    benches.limit(MODEL, LeaseId(4), 0.5, 100.0)
    assert free_at(benches, 100.5)


def test_an_operators_word_ends_probation() -> None:
    benches = Benches()
    benches.limit(MODEL, LeaseId(0), 1.0, 0.0)
    benches.granted(MODEL, LeaseId(1), 1.0)
    benches.clear_limits()
    assert free_at(benches, 1.0)


def test_after_a_restart_one_goes_first_too_and_its_refusal_is_doubted_as_before() -> None:
    benches, clock = Benches(), WallClock(1_700_000_000.0)
    benches.limit(MODEL, LeaseId(1), 1.0, 0.0)
    benches.granted(MODEL, LeaseId(2), 1.0)
    benches.limit(MODEL, LeaseId(2), 0.0, 1.0)
    restored = Benches()
    restored.restore(benches.export(1.0, clock), clock)
    assert not free_at(restored, 1.5)
    assert free_at(restored, 2.0)
    restored.granted(MODEL, LeaseId(3), 2.0)
    assert not free_at(restored, 2.1)
    restored.limit(MODEL, LeaseId(3), 0.0, 2.1)
    assert not free_at(restored, 4.0), "the second probe in a row that was refused"


def test_a_bench_that_is_over_leaves_its_probe_to_the_next_process() -> None:
    benches, clock = Benches(), WallClock(1_700_000_000.0)
    benches.limit(MODEL, LeaseId(1), 1.0, 0.0)
    restored = Benches()
    restored.restore(benches.export(5.0, clock), clock)
    restored.granted(MODEL, LeaseId(2), 5.0)
    assert not free_at(restored, 5.1)


def test_models_do_not_pile_up() -> None:
    benches = Benches()
    for number in range(3000):
        benches.limit(f"model-{number}", LeaseId(number), 1.0, float(number))
    assert len(benches.limits) <= 256
    assert len(benches._probations) <= 256
