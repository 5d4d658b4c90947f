"""The circuit breaker of one instance: stop sending when it fails, come back carefully.

Rule 1: everything that decides or changes the breaker's state is in this file.

States, and what each makes of what it is told (`-`: ignored, `!`: AssertionError, no change):

| state     | granted             | succeeded            | failed             | released    |
|-----------|---------------------|----------------------|--------------------|-------------|
| closed    | closed              | closed               | closed, or *trip*  | closed      |
| open      | *probe* in time, !  | -                    | -                  | -           |
| half_open | if admitted, else ! | ramp, then *recover* | *trip*             | permit back |

| transition | from              | to        | when                                               |
|------------|-------------------|-----------|----------------------------------------------------|
| trip       | closed, half_open | open      | closed: CONSECUTIVE_FAILURES in a row, or a share  |
|            |                   |           | of FAILURE_SHARE among at least MIN_OUTCOMES       |
|            |                   |           | within WINDOW_S; half_open: any failure            |
| probe      | open              | half_open | the first grant after the open time has passed     |
| recover    | half_open         | closed    | RAMP_SUCCESSES, or RAMP_S after the first success  |
| reset      | any               | closed    | an operator says so                                |

Time alone changes nothing that is stored: an open breaker whose time has passed is still open and
admits a probe. So whoever only reads (`admits`) never writes, and needs no timer.

Recovery is proved by real requests, and measured in tokens, because ten small requests say
nothing about one of a hundred thousand tokens. Half-open, the breaker admits what fits an
allowance of tokens that may be in flight, and always one request when none is. The allowance
begins at nothing, which makes the first request the single probe; every success adds twice its
tokens. That is TCP's slow start (RFC 5681, section 3.1), which likewise knows no limit, one step
steeper because a round trip takes seconds here: the load triples with each that holds. Long
streams would make it minutes, so time ends the ramp as well.

Outcomes count only for the period in which their lease was granted. When the breaker trips, the
leases still in flight are forgotten: their failures are the same outage, not a reason to wait
longer, and their successes began before it.

What is nobody's fault (a client that left, a 429, a refused key) is `released`: it proves nothing
in either direction, so it neither opens nor closes, and gives a probe's permit to the next.

Calls without tokens (files, batches) go to other parts of a service than inference does, and what
they ask for is the client's choice. That they are not answered is a failure like any other. But an
answer with a failure in it is `released`, and a success of theirs is set `aside`: closed, it clears
nothing; half-open, it only lets the time of the ramp begin, without which a service that has no
other calls would never recover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from actors.policy.window import SlidingSum

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from actors.messages import LeaseId

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]
Transition: TypeAlias = Literal["trip", "probe", "recover", "reset"]

CONSECUTIVE_FAILURES: Final = 5
"""Envoy's default for outlier detection. With one failure in ten by chance, five in a row are one
in 100 000, and a false alarm costs one second."""
WINDOW_S: Final = 30.0
"""Long enough for MIN_OUTCOMES at less than one request per second, and soon forgotten."""
MIN_OUTCOMES: Final = 20
"""At one failure in five by chance, half of twenty failing is rarer than one in 300."""
FAILURE_SHARE: Final = 0.5
"""Below it an instance still does more good than harm: failover absorbs the rest."""
FIRST_OPEN_S: Final = 1.0
"""Outlives a connection reset or a front end that restarts; hardly noticed when it was nothing."""
MAX_OPEN_S: Final = 60.0
"""Recovery is noticed within a minute; one request a minute is what a long outage costs."""
MAX_DOUBLINGS: Final = 6
"""The first power of two at which FIRST_OPEN_S exceeds MAX_OPEN_S; bounds the arithmetic."""
RAMP_SUCCESSES: Final = 20
"""Rounds of 1, 2, 6 and most of 18. Forty such requests may then be in flight, 240 a minute if
one takes ten seconds, which is what a large deployment is loaded with."""
RAMP_S: Final = 30.0
"""After that much time without a failure, unfinished streams are no reason to hold back. Also how
long a single unfinished probe keeps others waiting."""

TRANSITIONS: Final[Mapping[BreakerState, Mapping[Transition, BreakerState]]] = {
    "closed": {"trip": "open", "reset": "closed"},
    "open": {"probe": "half_open", "reset": "closed"},
    "half_open": {"trip": "open", "recover": "closed", "reset": "closed"},
}


class Breaker:
    """Judges whether one instance can be trusted with requests, from what became of the last ones.

    Synchronous, owned by the instance. Clock: every `now` is trio time in seconds. Every lease
    is told of once by `granted` and at most once by `succeeded`, `failed` or `released`; those
    three ignore a lease that belongs to an earlier period. Cost: about 1 µs per call when closed.
    """

    __slots__ = (
        "_allowance_tokens",
        "_consecutive",
        "_failures",
        "_in_flight_tokens",
        "_leases",
        "_outcomes",
        "_rng",
        "_state",
        "_successes",
        "_trips",
        "_until",
    )

    def __init__(self, rng: random.Random) -> None:
        """Closed. `rng` spreads the open times, so that instances are not probed in step."""
        self._rng = rng
        self._state: BreakerState = "closed"
        self._trips = 0
        self._begin_period(until=0.0)

    def _begin_period(self, until: float) -> None:
        """Forgets all evidence and all leases."""
        self._until = until
        """Open: a probe is admitted from here on. Half-open without a success yet: another probe
        is. Half-open with one: it counts as recovered."""
        self._leases: dict[LeaseId, int] = {}
        self._in_flight_tokens = 0
        self._allowance_tokens = 0
        self._successes = 0
        self._consecutive = 0
        self._failures = SlidingSum(WINDOW_S, 30)
        self._outcomes = SlidingSum(WINDOW_S, 30)

    @property
    def state(self) -> BreakerState:
        """An open breaker whose time has passed stays open until somebody is sent."""
        return self._state

    @property
    def sound(self) -> bool:
        """Nothing speaks against this instance now: closed, and the last outcome no failure."""
        return self._state == "closed" and not self._consecutive

    def admits(self, tokens: int, now: float) -> bool:
        """Whether `granted` would be accepted now. Changes nothing."""
        if self._state == "closed" or now >= self._until:
            return True
        return self._state == "half_open" and (
            not self._leases or 0 < self._in_flight_tokens + tokens <= self._allowance_tokens
        )

    def next_admission(self, now: float) -> float | None:
        """Trio time from which a request of any size is admitted, for all that is known now.

        None while the outcome of a request in flight decides: that comes sooner, as a rule, than
        `admits_all_from`, the time at which it stops to matter.
        """
        if self._state == "open":
            return max(now, self._until)
        awaited = self._state == "half_open" and self._leases and now < self._until
        return None if awaited else now

    @property
    def admits_all_from(self) -> float:
        """Trio time from which a request of any size is admitted whatever becomes of the others;
        in the past when closed."""
        return self._until

    def granted(self, lease_id: LeaseId, tokens: int, now: float) -> None:
        """A request that `admits` was sent."""
        assert self.admits(tokens, now), "granted against the breaker"
        assert lease_id not in self._leases, f"lease {lease_id} was granted before"
        self._leases[lease_id] = tokens
        self._in_flight_tokens += tokens
        if self._state == "closed":
            return
        if self._state == "open":
            self._change("probe")
        self._recover_in_time(now)
        if self._successes == 0:
            self._until = now + RAMP_S

    def succeeded(self, lease_id: LeaseId, now: float, *, aside: bool = False) -> None:
        """The instance did its work: also when that was to refuse a request that was wrong.

        `aside`: with a call without tokens.
        """
        tokens = self._leave(lease_id)
        if tokens is None:
            return
        self._recover_in_time(now)
        if aside and (self._state == "closed" or self._successes):
            return
        if self._state == "closed":
            self._consecutive = 0
            self._outcomes.add(1, now)
            return
        self._successes += 1
        self._allowance_tokens += 2 * tokens
        if self._successes == 1:
            self._until = now + RAMP_S
        if self._successes >= RAMP_SUCCESSES:
            self._recover()

    def failed(self, lease_id: LeaseId, now: float, asked_s: float = 0.0) -> None:
        """The instance failed: no connection, timeout, 408, 5xx, a broken stream.

        `asked_s`: how long it asked to be left alone; if this opens the breaker, it stays open
        for at least that long, up to MAX_OPEN_S.
        """
        if self._leave(lease_id) is None:
            return
        self._recover_in_time(now)
        if self._state == "half_open" or self._failed_too_often(now):
            self._trip(now, asked_s)

    def released(self, lease_id: LeaseId) -> None:
        """The lease ended without saying anything about the instance."""
        self._leave(lease_id)

    def reset(self) -> None:
        """Closed, with nothing held against it; what is in flight will not count."""
        self._change("reset")
        self._trips = 0
        self._begin_period(until=0.0)

    def export(self, now: float) -> dict[str, float]:
        """What a restart must not forget: seconds until a probe, and how often in a row it
        opened. Empty when closed.
        """
        if self._state == "closed":
            return {}
        open_s = max(0.0, self._until - now) if self._state == "open" else 0.0
        return {"open_s": open_s, "trips": self._trips}

    def restore(self, exported: Mapping[str, Any], older_s: float, now: float) -> None:
        """Takes back into a new breaker what was exported `older_s` seconds ago.

        Half-open comes back as open and due for a probe. What is malformed is ignored.
        """
        open_s, trips = exported.get("open_s"), exported.get("trips")
        if not (isinstance(open_s, int | float) and isinstance(trips, int)):
            return
        if not (open_s >= 0 and trips >= 1):  # false for NaN as well
            return
        self._change("trip")
        self._trips = min(trips, MAX_DOUBLINGS)
        left_s = min(open_s, MAX_OPEN_S) - max(0.0, older_s)
        self._begin_period(until=now + max(0.0, left_s))

    def _leave(self, lease_id: LeaseId) -> int | None:
        """Takes a lease out of flight; None if it is not of this period."""
        tokens = self._leases.pop(lease_id, None)
        if tokens is not None:
            self._in_flight_tokens -= tokens
        return tokens

    def _failed_too_often(self, now: float) -> bool:
        """Counts one more failure while closed."""
        self._consecutive += 1
        self._failures.add(1, now)
        self._outcomes.add(1, now)
        outcomes = self._outcomes.total(now)
        return self._consecutive >= CONSECUTIVE_FAILURES or (
            outcomes >= MIN_OUTCOMES and self._failures.total(now) >= FAILURE_SHARE * outcomes
        )

    def _trip(self, now: float, asked_s: float) -> None:
        self._change("trip")
        longest_s = min(MAX_OPEN_S, FIRST_OPEN_S * 2**self._trips)
        self._trips = min(self._trips + 1, MAX_DOUBLINGS)
        open_s = max(longest_s * self._rng.uniform(0.5, 1.0), min(asked_s, MAX_OPEN_S))
        self._begin_period(until=now + open_s)

    def _recover_in_time(self, now: float) -> None:
        if self._state == "half_open" and self._successes and now >= self._until:
            self._recover()

    def _recover(self) -> None:
        """What is in flight goes on to count, as evidence of the closed period."""
        self._change("recover")
        self._trips = 0

    def _change(self, transition: Transition) -> None:
        """The only place where the state changes. AssertionError, and no change, if illegal."""
        target = TRANSITIONS[self._state].get(transition)
        assert target is not None, f"{transition} while {self._state}"
        self._state = target
