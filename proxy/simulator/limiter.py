"""What one deployment lets through: tokens and requests per minute, as Azure enforces them.

Pure and synchronous: `now` comes in, nothing waits. Rules and their variants follow
learn.microsoft.com, "Manage Azure OpenAI quota" and "Provisioned throughput", read 2026-11.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

from proxy.simulator.steps import Steps, breakpoints
from proxy.simulator.window import Charge, FixedWindow, LeakyBucket, SlidingWindow, Window

MINUTE_S = 60.0
_ALL = Steps(1.0)
_NOTHING = Steps(0.0)

WindowKind: TypeAlias = Literal["minute", "sliding", "bucket"]
Charging: TypeAlias = Literal["estimate", "corrected", "actual"]
Tripped: TypeAlias = Literal["tokens", "requests"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of a deployment and the way in which they are enforced.

    `window`: a fixed minute whose boundaries lie at `phase_s`, a sliding minute, or a bucket that
    drains evenly. `charging`: the estimate stands for good, is corrected to what was used when
    the call ends, or only what was used counts, from the end of the call. `admission`: the whole
    charge must fit, or any room at all is enough (then the last call overshoots).
    `counts_refused`: what a refused call adds to the counters. `pacing_s`: the sub-window in which
    requests are counted besides the minute, 1 or 10; None for none. `imprecision`: each decision
    sees a token limit that is off by up to this share, either way. `clock_skew_s`: by so much the
    clock from which hints are told runs ahead, so that hints are too short by it.
    `effective`: the share of `tpm` that is in force; `stranger`: the share of everything that
    somebody else takes; both by seconds since the resource began.
    `output_weight` and `cached_is_free`: what output and cached input tokens count as.
    """

    tpm: int = 60_000
    rpm: int | None = None
    rpm_per_1000_tpm: float = 6.0
    window: WindowKind = "minute"
    phase_s: float = 0.0
    charging: Charging = "estimate"
    admission: Literal["fits", "below"] = "fits"
    counts_refused: Literal["none", "requests", "all"] = "requests"
    pacing_s: float | None = None
    imprecision: float = 0.0
    clock_skew_s: float = 0.0
    effective: Steps = _ALL
    stranger: Steps = _NOTHING
    output_weight: int = 1
    cached_is_free: bool = False

    @property
    def requests_per_min(self) -> int:
        """`rpm` if given (0: no limit on requests), else from the ratio, at least 1."""
        if self.rpm is not None:
            return self.rpm
        return max(1, round(self.tpm * self.rpm_per_1000_tpm / 1000))

    def load(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
        """What a call of this size counts."""
        free = cached_tokens if self.cached_is_free else 0
        return input_tokens - free + self.output_weight * output_tokens


class Ticket:
    """A call that was let in. Settled once; until then its charge is what `admit` made it."""

    __slots__ = ("charge", "settled")

    def __init__(self, charge: Charge | None) -> None:
        self.charge = charge
        self.settled = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that was not let in.

    `wait_s`: until the same call would be let in if nothing else came, by the clock that hints
    are told from; a minute for a call that can never fit.
    """

    tripped: Tripped
    wait_s: float
    too_large: bool


@dataclass(frozen=True, slots=True)
class Level:
    """Where one count stands. `clears_s`: until all that counts now is forgotten."""

    limit: int
    remaining: int
    clears_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the counts of a deployment are; `requests` None: those have no limit."""

    tokens: Level
    requests: Level | None
    utilisation: float


@dataclass(slots=True)
class Tally:
    """Totals since the beginning.

    `charged_tokens`: the load as admitted. `served_tokens`: input and output that were really
    used, calls cut short included as far as they came.
    """

    admitted: int = 0
    refused_by_tokens: int = 0
    refused_by_requests: int = 0
    charged_tokens: int = 0
    served_tokens: int = 0
    settled: int = 0

    @property
    def refused(self) -> int:
        return self.refused_by_tokens + self.refused_by_requests


class Limiter:
    """The counters of one deployment. Cost of a call: constant, amortised."""

    def __init__(
        self, limits: Limits, *, origin_s: float = 0.0, rng: random.Random | None = None
    ) -> None:
        """`origin_s`: when the resource began; the schedules in `limits` count from there."""
        self.limits = limits
        self._origin_s = origin_s
        self._rng = rng or random.Random(0)  # noqa: S311 - a simulation, to be repeatable
        self._tokens = _window(limits, MINUTE_S)
        self._requests: list[tuple[Window, float]] = []
        rpm = limits.requests_per_min
        if rpm:
            minute = "sliding" if limits.window == "bucket" else limits.window
            self._requests.append((_window(replace(limits, window=minute), MINUTE_S), rpm))
            if limits.pacing_s is not None:
                most = math.ceil(rpm * limits.pacing_s / MINUTE_S)
                self._requests.append((FixedWindow(limits.pacing_s, limits.phase_s), most))
        self._now: float | None = None
        self._limit_tokens = 0
        self._room_tokens = 0
        self._share = 1.0
        self._tally = Tally()

    def admit(
        self, now: float, input_tokens: int, output_tokens: int, cached_tokens: int = 0
    ) -> Ticket | Refused:
        """Lets a call in and charges it, or refuses it. Never blocks.

        `output_tokens`: the allowance for the answer.
        """
        limits = self.limits
        self._advance(now)
        load = limits.load(input_tokens, cached_tokens, output_tokens)
        after = limits.charging == "actual"
        need = 1 if after or limits.admission == "below" else load
        room: float = self._room_tokens
        if limits.imprecision:
            room *= 1 + self._rng.uniform(-limits.imprecision, limits.imprecision)
        if self._tokens.fits_at(room, need) > now or self._requests_fit_at() > now:
            return self._refuse(now, load, room, need)
        for window, _ in self._requests:
            window.charge(1)
        self._tally.admitted += 1
        self._tally.charged_tokens += load
        return Ticket(None if after else self._tokens.charge(load))

    def settle(
        self,
        now: float,
        ticket: Ticket,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int = 0,
    ) -> None:
        """The call has ended, having used this much. A second settlement changes nothing."""
        if ticket.settled:
            return
        ticket.settled = True
        self._tally.settled += 1
        self._tally.served_tokens += input_tokens + output_tokens
        charging = self.limits.charging
        if charging == "estimate":
            return
        self._advance(now)
        load = self.limits.load(input_tokens, cached_tokens, output_tokens)
        if ticket.charge is None:
            self._tokens.charge(load)
        else:
            self._tokens.correct(ticket.charge, load)

    def standing(self, now: float) -> Standing:
        """The counters at `now`, for rate-limit headers and for whoever watches."""
        self._advance(now)
        window, room = self._tokens, self._room_tokens
        left = max(0, int(room - window.used))
        tokens = Level(self._limit_tokens, left, window.clears_at(room) - now)
        requests = None
        if self._requests:
            minute, rpm = self._requests[0]
            left = max(0, int(rpm * self._share - minute.used))
            requests = Level(int(rpm), left, minute.clears_at(rpm) - now)
        return Standing(tokens, requests, window.used / room if room else 1.0)

    def tally(self) -> Tally:
        """A copy of the totals so far."""
        return replace(self._tally)

    def capacity_tokens(self, since: float, until: float) -> float:
        """Rate times time between two moments, schedules taken into account.

        A window can let through up to one minute's worth more, at the edges.
        """
        limits = self.limits
        since_s, until_s = since - self._origin_s, until - self._origin_s
        points = breakpoints(since_s, until_s, limits.effective, limits.stranger)
        shares = (
            (later - earlier) * limits.effective.at(earlier) * (1 - limits.stranger.at(earlier))
            for earlier, later in pairwise(points)
        )
        return sum(shares) * limits.tpm / MINUTE_S

    def _advance(self, now: float) -> None:
        if now == self._now:
            return
        self._now = now
        limits = self.limits
        elapsed_s = now - self._origin_s
        self._limit_tokens = int(limits.tpm * limits.effective.at(elapsed_s))
        self._share = 1 - limits.stranger.at(elapsed_s)
        self._room_tokens = int(self._limit_tokens * self._share)
        self._tokens.advance(now, self._room_tokens)
        for window, limit in self._requests:
            window.advance(now, limit * self._share)

    def _requests_fit_at(self) -> float:
        return max(
            (window.fits_at(max(1.0, limit * self._share), 1) for window, limit in self._requests),
            default=-math.inf,
        )

    def _refuse(self, now: float, load: int, room: float, need: int) -> Refused:
        tripped: Tripped = (
            "tokens" if self._tokens.fits_at(room, need) >= self._requests_fit_at() else "requests"
        )
        if tripped == "tokens":
            self._tally.refused_by_tokens += 1
        else:
            self._tally.refused_by_requests += 1
        counts = self.limits.counts_refused
        if counts != "none":
            for window, _ in self._requests:
                window.charge(1)
        if counts == "all":
            self._tokens.charge(load)
        # Only now: what this very refusal has added is still there when the caller comes back.
        at = max(self._tokens.fits_at(room, need), self._requests_fit_at())
        too_large = at == math.inf
        wait_s = MINUTE_S if too_large else at - now
        return Refused(tripped, max(0.0, wait_s - self.limits.clock_skew_s), too_large)


def _window(limits: Limits, length_s: float) -> Window:
    match limits.window:
        case "minute":
            return FixedWindow(length_s, limits.phase_s)
        case "sliding":
            return SlidingWindow(length_s)
        case "bucket":
            return LeakyBucket(length_s)
