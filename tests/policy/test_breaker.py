"""The breaker: its table cell by cell, its thresholds, its ramp."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tripped import (
    HUGE,
    KNOWN,
    NEW,
    SITUATIONS,
    START,
    UNKNOWN,
    due,
    fresh,
    outcome,
    situation,
    snapshot,
    tripped,
)

from actors.messages import LeaseId
from actors.policy import breaker as policy
from actors.policy.breaker import (
    CONSECUTIVE_FAILURES,
    FIRST_OPEN_S,
    MAX_OPEN_S,
    MIN_OUTCOMES,
    RAMP_S,
    RAMP_SUCCESSES,
    WINDOW_S,
    Breaker,
)


def poke(breaker: Breaker, event: str, now: float) -> None:
    match event.split():
        case ["grant", "fits"]:
            breaker.granted(NEW, 100, now)
        case ["grant", "huge"]:
            breaker.granted(NEW, HUGE, now)
        case ["grant", "again"]:
            breaker.granted(KNOWN, 0, now)
        case ["success"]:
            breaker.succeeded(KNOWN, now)
        case ["aside"]:
            breaker.succeeded(KNOWN, now, aside=True)
        case ["failure"]:
            breaker.failed(KNOWN, now)
        case ["release"]:
            breaker.released(KNOWN)
        case ["reset"]:
            breaker.reset()
        case ["stale", "success"]:
            breaker.succeeded(UNKNOWN, now)
        case ["stale", "failure"]:
            breaker.failed(UNKNOWN, now)
        case ["stale", "release"]:
            breaker.released(UNKNOWN)
        case _:
            raise AssertionError(event)


ILLEGAL = "illegal"
TABLE = {
    # event: the state afterwards in each of SITUATIONS
    "grant fits": ("closed", "closed", ILLEGAL, "half_open", ILLEGAL, "half_open"),
    "grant huge": ("closed", "closed", ILLEGAL, "half_open", ILLEGAL, ILLEGAL),
    "grant again": (ILLEGAL, ILLEGAL, ILLEGAL, "half_open", ILLEGAL, ILLEGAL),
    "success": ("closed", "closed", "open", "open", "half_open", "half_open"),
    "aside": ("closed", "closed", "open", "open", "half_open", "half_open"),
    "failure": ("closed", "open", "open", "open", "open", "open"),
    "release": ("closed", "closed", "open", "open", "half_open", "half_open"),
    "stale success": ("closed", "closed", "open", "open", "half_open", "half_open"),
    "stale failure": ("closed", "closed", "open", "open", "half_open", "half_open"),
    "stale release": ("closed", "closed", "open", "open", "half_open", "half_open"),
    "reset": ("closed",) * 6,
}
CELLS = [
    (event, where, after)
    for event, row in TABLE.items()
    for where, after in zip(SITUATIONS, row, strict=True)
]


@pytest.mark.parametrize(("event", "where", "after"), CELLS)
def test_table(event: str, where: str, after: str) -> None:
    breaker, now = situation(where)
    before = snapshot(breaker)
    if after == ILLEGAL:
        with pytest.raises(AssertionError):
            poke(breaker, event, now)
        assert snapshot(breaker) == before
        return
    poke(breaker, event, now)
    assert breaker.state == after
    if event.startswith("stale"):
        assert snapshot(breaker) == before


@pytest.mark.parametrize("state", ["closed", "open", "half_open"])
@pytest.mark.parametrize("transition", ["trip", "probe", "recover", "reset"])
def test_the_module_docstring_has_every_transition(state: str, transition: str) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (policy.__doc__ or "").splitlines()
        if line.startswith(f"| {transition} ")
    ]
    assert len(rows) == 1
    _, sources, target, _ = rows[0]
    documented = target if sources == "any" or state in sources.split(", ") else None
    table: Any = policy.TRANSITIONS
    assert table[state].get(transition) == documented


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = fresh()
    for _ in range(3):
        for _ in range(CONSECUTIVE_FAILURES - 1):
            outcome(breaker, False, START)
        outcome(breaker, True, START)
    assert breaker.state == "closed"
    assert breaker.admits(HUGE, START)
    assert breaker.next_admission(START) == START


def test_it_is_sound_while_closed_and_until_a_failure_that_no_success_has_followed() -> None:
    breaker = fresh()
    assert breaker.sound
    outcome(breaker, False, START)
    assert not breaker.sound
    outcome(breaker, True, START)
    assert breaker.sound
    breaker = tripped()
    assert not breaker.sound
    outcome(breaker, True, due(breaker))
    assert breaker.state == "half_open"
    assert not breaker.sound


def test_half_of_the_recent_outcomes_failing_opens_it() -> None:
    breaker = fresh()
    for n in range(MIN_OUTCOMES - 1):
        outcome(breaker, n % 2 == 0, START + n)
    assert breaker.state == "closed"
    outcome(breaker, False, START + MIN_OUTCOMES)
    assert breaker.state == "open"


def test_too_few_outcomes_say_nothing_about_the_share() -> None:
    breaker = fresh()
    for n in range(200):
        outcome(breaker, n % 2 == 0, START + n * 2 * WINDOW_S / MIN_OUTCOMES)
    assert breaker.state == "closed"


def test_less_than_half_failing_keeps_it_closed() -> None:
    breaker = fresh()
    for n in range(300):
        outcome(breaker, n % 3 != 0, START + n / 10)
    assert breaker.state == "closed"


def test_open_ends_exactly_when_it_says() -> None:
    breaker = tripped()
    at = due(breaker)
    assert START + FIRST_OPEN_S / 2 <= at <= START + FIRST_OPEN_S
    assert not breaker.admits(0, math.nextafter(at, 0))
    assert breaker.admits(HUGE, at)
    assert breaker.next_admission(at + 5) == at + 5
    assert breaker.state == "open"


def test_open_time_doubles_with_every_failed_probe_up_to_its_cap() -> None:
    breaker = tripped()
    now = due(breaker)
    bounds = [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    for longest_s in bounds:
        outcome(breaker, False, now)
        at = breaker.next_admission(now)
        assert at is not None
        assert now + longest_s / 2 <= at <= now + longest_s
        now = at


def test_a_day_of_outage_still_ends_in_a_probe_each_minute() -> None:
    breaker, now = tripped(), START
    for _ in range(3000):
        at = breaker.next_admission(now)
        assert at is not None
        assert at <= now + MAX_OPEN_S
        now = at
        outcome(breaker, False, now)
    assert breaker.export(now)["trips"] < 100


def test_open_times_are_spread() -> None:
    assert len({due(tripped(seed)) for seed in range(20)}) == 20
    assert due(tripped(7)) == due(tripped(7))


def test_recovery_forgets_how_long_the_outage_was() -> None:
    breaker = tripped()
    now = due(breaker)
    for _ in range(5):
        outcome(breaker, False, now)
        now = breaker.next_admission(now) or math.nan
    for _ in range(RAMP_SUCCESSES):
        outcome(breaker, True, now)
    assert breaker.state == "closed"
    for _ in range(CONSECUTIVE_FAILURES):
        outcome(breaker, False, now)
    assert (breaker.next_admission(now) or math.inf) <= now + FIRST_OPEN_S


def test_a_released_probe_gives_its_permit_to_the_next() -> None:
    breaker, now = situation("probing")
    assert not breaker.admits(0, now)
    assert breaker.next_admission(now) is None
    breaker.released(KNOWN)
    assert breaker.next_admission(now) == now
    breaker.granted(NEW, HUGE, now)
    assert not breaker.admits(0, now)


def test_a_probe_that_takes_long_does_not_hold_the_door_for_ever() -> None:
    breaker, now = situation("probing")
    late = now + RAMP_S
    assert not breaker.admits(1, math.nextafter(late, 0))
    assert breaker.admits(1, late)
    breaker.granted(NEW, 1, late)
    assert not breaker.admits(1, late)
    breaker.succeeded(KNOWN, late)
    assert breaker.admits(199, late)
    assert not breaker.admits(200, late)


def test_calls_without_tokens_clear_nothing_of_inference() -> None:
    breaker = fresh()
    for number in range(CONSECUTIVE_FAILURES):
        assert breaker.state == "closed"
        breaker.granted(LeaseId(number), 0, START)
        breaker.succeeded(LeaseId(number), START, aside=True)
        outcome(breaker, False, START)
    assert breaker.state == "open"


def test_calls_without_tokens_alone_let_it_recover_in_time() -> None:
    breaker = tripped()
    now = due(breaker)
    for number in range(2 * RAMP_SUCCESSES):
        breaker.granted(LeaseId(number), 0, now)
        breaker.succeeded(LeaseId(number), now, aside=True)
        assert breaker.state == "half_open", "however many they are"
    assert breaker.admits(HUGE, now), "a request for the probe is still let through"
    breaker.granted(NEW, 0, now + RAMP_S)
    assert breaker.state == "closed"


def test_the_ramp_triples_the_tokens_in_flight() -> None:
    breaker, now = tripped(), 2_000.0
    rounds = []
    number = 1_000
    while breaker.state != "closed":
        batch: list[LeaseId] = []
        while breaker.admits(100, now) and len(batch) < 50:
            breaker.granted(LeaseId(number), 100, now)
            batch.append(LeaseId(number))
            number += 1
        rounds.append(len(batch))
        now += 1
        for lease in batch:
            breaker.succeeded(lease, now)
    assert rounds == [1, 2, 6, 18]
    assert breaker.admits(HUGE, now)


def test_a_request_larger_than_the_allowance_goes_alone() -> None:
    breaker, now = situation("ramp")
    breaker.succeeded(KNOWN, now)
    assert breaker.admits(HUGE, now)
    breaker.granted(NEW, HUGE, now)
    assert not breaker.admits(1, now)


def test_the_ramp_ends_with_time_whatever_is_granted_meanwhile() -> None:
    breaker, now = situation("ramp")
    end = now + RAMP_S
    breaker.granted(NEW, 1, now + 10)
    assert not breaker.admits(HUGE, math.nextafter(end, 0))
    assert breaker.admits(HUGE, end)
    assert breaker.next_admission(end) == end


def test_what_is_in_flight_when_the_ramp_ends_counts_on() -> None:
    breaker, now = situation("ramp")
    breaker.granted(NEW, 1, now)
    end = now + RAMP_S
    breaker.failed(KNOWN, end)
    breaker.failed(NEW, end)
    assert breaker.state == "closed"
    for _ in range(CONSECUTIVE_FAILURES - 2):
        outcome(breaker, False, end)
    assert breaker.state == "open"


def test_a_failure_in_the_ramp_opens_it_for_longer() -> None:
    breaker, now = situation("ramp")
    breaker.failed(KNOWN, now)
    at = breaker.next_admission(now)
    assert at is not None
    assert now + FIRST_OPEN_S <= at <= now + 2 * FIRST_OPEN_S


def test_a_reset_forgets_what_is_in_flight() -> None:
    breaker = fresh()
    leases = [LeaseId(n) for n in range(10)]
    for lease in leases:
        breaker.granted(lease, 1, START)
    breaker.reset()
    for lease in leases:
        breaker.failed(lease, START)
    assert breaker.state == "closed"
