"""A breaker, as it comes into each of its situations."""

from __future__ import annotations

import math
import pickle
import random

from actors.messages import LeaseId
from actors.policy.breaker import CONSECUTIVE_FAILURES, Breaker

START = 1_000.0
HUGE = 10**9
KNOWN, UNKNOWN, NEW = LeaseId(1), LeaseId(2), LeaseId(3)
"""In the table: in flight in the present period; of an earlier one; not granted yet."""


def snapshot(breaker: Breaker) -> bytes:
    """Everything the breaker holds, but for its random numbers, which are slow to copy."""
    return pickle.dumps([getattr(breaker, name) for name in Breaker.__slots__ if name != "_rng"])


def fresh(seed: int = 0) -> Breaker:
    return Breaker(random.Random(seed))


def outcome(breaker: Breaker, ok: bool, now: float, lease: int = 99) -> None:
    breaker.granted(LeaseId(lease), 100, now)
    if ok:
        breaker.succeeded(LeaseId(lease), now)
    else:
        breaker.failed(LeaseId(lease), now)


def tripped(seed: int = 0) -> Breaker:
    breaker = fresh(seed)
    breaker.granted(UNKNOWN, 100, START)
    for _ in range(CONSECUTIVE_FAILURES):
        outcome(breaker, False, START)
    return breaker


def due(breaker: Breaker) -> float:
    at = breaker.next_admission(START)
    assert at is not None
    return at


def situation(name: str) -> tuple[Breaker, float]:
    """A breaker in the named situation, and the time at which to poke it."""
    if name in ("closed", "failing"):
        breaker = fresh()
        for _ in range(CONSECUTIVE_FAILURES - 1 if name == "failing" else 0):
            outcome(breaker, False, START)
        breaker.granted(KNOWN, 100, START)
        return breaker, START
    breaker = tripped()
    now = due(breaker)
    if name == "open":
        return breaker, math.nextafter(now, 0)
    if name == "due":
        return breaker, now
    if name == "ramp":
        outcome(breaker, True, now)
        breaker.granted(KNOWN, 100, now)
        return breaker, now
    assert name == "probing"
    breaker.granted(KNOWN, 100, now)
    return breaker, now


SITUATIONS = ("closed", "failing", "open", "due", "probing", "ramp")
