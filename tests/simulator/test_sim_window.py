"""The three windows, against lists of everything that was ever counted."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator.window import Charge, FixedWindow, LeakyBucket, SlidingWindow, Window

LENGTH_S = 60


def test_fixed_window_forgets_everything_at_its_boundary() -> None:
    window = FixedWindow(60, phase_s=10)
    window.advance(9, 100)
    window.charge(70)
    assert window.fits_at(100, 40) == 10
    window.advance(9.9, 100)
    assert window.used == 70
    window.advance(10, 100)
    assert window.used == 0
    assert window.fits_at(100, 40) == 10


def test_sliding_window_forgets_each_charge_after_a_minute() -> None:
    window = SlidingWindow(60)
    window.advance(0, 100)
    window.charge(50)
    window.advance(30, 100)
    window.charge(40)
    assert window.fits_at(100, 20) == 60
    assert window.fits_at(100, 70) == 90
    window.advance(60, 100)
    assert window.used == 40
    assert window.clears_at(100) == 90


def test_leaky_bucket_drains_by_its_limit_in_a_minute() -> None:
    window = LeakyBucket(60)
    window.advance(5, 120)
    window.charge(120)
    window.advance(20, 120)
    assert window.used == pytest.approx(90)
    assert window.fits_at(120, 60) == pytest.approx(35)
    assert window.clears_at(120) == pytest.approx(65)


@pytest.mark.parametrize("window", [FixedWindow(60), SlidingWindow(60), LeakyBucket(60)])
def test_what_is_larger_than_the_limit_never_fits(window: Window) -> None:
    window.advance(0, 100)
    assert window.fits_at(100, 101) == math.inf


def test_a_correction_after_the_boundary_does_not_touch_the_new_window() -> None:
    window = FixedWindow(60)
    window.advance(59, 100)
    late = window.charge(50)
    window.advance(61, 100)
    window.charge(10)
    window.correct(late, 5)
    assert window.used == 10


AMOUNTS = st.integers(0, 50)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["charge", "correct"]),
        st.integers(0, 40),
        AMOUNTS,
        st.integers(0, 10),
    ),
    max_size=30,
)


def replay(window: Window, steps: list[tuple[str, int, int, int]], limit: int) -> list[Charge]:
    """Runs `steps`: (what, seconds later, amount, which earlier charge). Returns the charges."""
    now = 0
    charges: list[Charge] = []
    window.advance(now, limit)
    for what, later, amount, which in steps:
        now += later
        window.advance(now, limit)
        if what == "charge":
            charges.append(window.charge(amount))
        elif charges:
            window.correct(charges[which % len(charges)], amount)
        check_room(window, limit, amount, now)
    return charges


def check_room(window: Window, limit: int, amount: int, now: float) -> None:
    at = window.fits_at(limit, amount)
    assert at >= now
    assert (at == now) == (window.used + amount <= limit + 1e-6)
    assert window.clears_at(limit) >= now


@given(STEPS, st.integers(0, 59))
def test_fixed_window_counts_what_its_minute_has_seen(
    steps: list[tuple[str, int, int, int]], phase_s: int
) -> None:
    window = FixedWindow(LENGTH_S, phase_s)
    charges = replay(window, steps, 100)
    now = sum(later for _, later, _, _ in steps)
    minute = (now - phase_s) // LENGTH_S
    assert window.used == sum(
        charge.amount for charge in charges if (charge.at - phase_s) // LENGTH_S == minute
    )


@given(STEPS)
def test_sliding_window_counts_what_the_last_minute_has_seen(
    steps: list[tuple[str, int, int, int]],
) -> None:
    window = SlidingWindow(LENGTH_S)
    charges = replay(window, steps, 100)
    now = sum(later for _, later, _, _ in steps)
    assert window.used == sum(charge.amount for charge in charges if now - charge.at < LENGTH_S)


@given(st.lists(st.tuples(st.integers(0, 40), AMOUNTS), max_size=30), st.integers(1, 100))
def test_leaky_bucket_drains_evenly(steps: list[tuple[int, int]], limit: int) -> None:
    window = LeakyBucket(LENGTH_S)
    window.advance(0, limit)
    level, now = Fraction(0), 0
    for later, amount in steps:
        now += later
        window.advance(now, limit)
        level = max(Fraction(0), level - Fraction(later * limit, LENGTH_S))
        assert window.used == pytest.approx(float(level))
        window.charge(amount)
        level += amount


@given(
    st.sampled_from(["fixed", "sliding", "bucket"]),
    st.lists(st.tuples(st.integers(0, 30), AMOUNTS), min_size=1, max_size=20),
    st.integers(0, 100),
)
def test_there_is_room_at_the_promised_time_and_not_before(
    kind: str, steps: list[tuple[int, int]], amount: int
) -> None:
    window: Window = {
        "fixed": FixedWindow(LENGTH_S, 7),
        "sliding": SlidingWindow(LENGTH_S),
        "bucket": LeakyBucket(LENGTH_S),
    }[kind]
    now = 0
    for later, counted in steps:
        now += later
        window.advance(now, 100)
        window.charge(counted)
    at = window.fits_at(100, amount)
    if at > now:
        window.advance(max(now, at - 0.01), 100)
        assert window.fits_at(100, amount) > max(now, at - 0.01)
    window.advance(at, 100)
    assert window.fits_at(100, amount) == at
