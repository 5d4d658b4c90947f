"""When which requests come: drawn from a traffic spec, or read from a recorded trace."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.planning.traffic import Burst, Points, TrafficSpec


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `at_s`: seconds since the beginning. `output_tokens`: the answer's length if
    nothing cuts it."""

    at_s: float
    model: str
    input_tokens: int
    output_tokens: int
    max_tokens: int | None = None
    stream: bool = False

    @property
    def tokens(self) -> int:
        """What it uses if it is served: input and output."""
        if self.max_tokens is None:
            return self.input_tokens + self.output_tokens
        return self.input_tokens + min(self.output_tokens, self.max_tokens)


def drawn(spec: TrafficSpec, duration_s: float, seed: int) -> Iterator[Ask]:
    """Requests that come independently of each other at the rate of `spec` (a Poisson process),
    in the order of time. The same for the same seed."""
    rng = random.Random(f"{seed}/arrivals")  # noqa: S311 - a simulation, repeatable
    kinds = spec.requests
    shares = list(accumulate(kind.share for kind in kinds))
    most = peak(spec)
    at_s = 0.0
    while most > 0:
        # Thinning (P. Lewis, G. Shedler, 1979): draw at the highest rate, keep the right share.
        at_s += rng.expovariate(most / 60)
        if at_s >= duration_s:
            return
        if rng.random() * most >= rate(spec, at_s):
            continue
        (kind,) = rng.choices(kinds, cum_weights=shares)
        output_tokens = kind.output_tokens.draw(rng)
        yield Ask(
            at_s,
            kind.model,
            kind.input_tokens.draw(rng),
            output_tokens,
            kind.max_tokens.limit(output_tokens),
            rng.random() < kind.stream_share,
        )


def rate(spec: TrafficSpec, at_s: float) -> float:
    """Requests per minute at `at_s`."""
    return _interpolated(spec.requests_per_minute, at_s) * _burst_factor(spec.bursts, at_s)


def peak(spec: TrafficSpec) -> float:
    """A rate that is never exceeded, in requests per minute."""
    highest = max((value for _, value in spec.requests_per_minute), default=0.0)
    return highest * math.prod(max(1.0, burst.times) for burst in spec.bursts)


def _interpolated(points: Points, at_s: float) -> float:
    """On the straight line between two points; before the first and after the last as there."""
    if at_s <= points[0][0]:
        return points[0][1]
    for (begin_s, first), (end_s, last) in pairwise(points):
        if at_s < end_s:
            return first + (last - first) * (at_s - begin_s) / (end_s - begin_s)
    return points[-1][1]


def _burst_factor(bursts: tuple[Burst, ...], at_s: float) -> float:
    return math.prod(
        burst.times for burst in bursts if (at_s - burst.from_s) % burst.every_s < burst.lasts_s
    )
