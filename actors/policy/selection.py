"""In which order the instances that could serve a request are asked.

A `Pool` holds the candidates for one model and everything about them that can be worked out
beforehand. `Pool.order` yields all of them, each once, lazily: nearly always the first one fits,
so the first one is cheap whatever the size of the pool, and the rest is put in order only when
somebody asks for it. Whether a candidate fits is for the caller to find out.

| strategy     | order                                                                       |
|--------------|-----------------------------------------------------------------------------|
| priority     | tiers, lowest number first; within a tier at random in proportion to weight |
| failover     | by priority, then as configured; weights mean nothing                       |
| weighted     | whoever is furthest behind its share of the grants                          |
| round_robin  | whoever has not had its turn for longest                                    |
| least_loaded | lowest utilisation first                                                    |
| random       | at random, evenly                                                           |

All but `priority` and `failover` disregard priorities and see one tier. In all but `failover` a
candidate of weight 0 is a reserve: it comes after the others of its tier, where evenly chosen.
"""

from __future__ import annotations

from bisect import bisect, bisect_left, insort
from hashlib import blake2b
from itertools import accumulate, chain, groupby
from math import log
from operator import attrgetter
from typing import (
    TYPE_CHECKING,
    Final,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypeVar,
    get_args,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence

Strategy: TypeAlias = Literal[
    "priority", "failover", "weighted", "round_robin", "least_loaded", "random"
]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)

DRAWS: Final = 3
"""Tickets drawn before the rest is put in order at once: when three were full, more will be."""
CREDIT_GRANTS: Final = 100
"""How many grants of the pool a candidate can fall behind and still make up for: about what a full
window turns away in a second or two, too few to bury one that comes back after an outage."""
STRETCH: Final = 16
"""Candidates compared for the lowest utilisation at once; among more, a random stretch of so many.
The gain beyond a few random choices is small (M. Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", 2001), the cost of reading all of them is not."""


class Settings(Protocol):
    """`priority`: lower is earlier. `weight`: 0 or more, relative to the others of the tier."""

    @property
    def name(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def weight(self) -> int: ...


class Load(Protocol):
    def utilization(self, now: float) -> float:
        """Share of the limit in use. `now`: trio time."""
        ...


class Candidate(Protocol):
    """What selection knows of an instance; `actors.messages.InstanceRef` is one."""

    @property
    def config(self) -> Settings: ...
    @property
    def headroom(self) -> Load: ...


C = TypeVar("C", bound=Candidate)
C_co = TypeVar("C_co", bound=Candidate, covariant=True)


class Draw(Protocol[C_co]):
    """One way to order the candidates of one tier."""

    def order(self, now: float) -> Iterator[C_co]: ...


class Selector:
    """Makes pools that follow one strategy. All that is random comes from `rng`."""

    def __init__(self, strategy: Strategy, rng: random.Random) -> None:
        assert strategy in STRATEGIES
        self.strategy = strategy
        self._rng = rng

    def pool(self, candidates: Sequence[C]) -> Pool[C]:
        """A pool of these, in the order of configuration. Names are unique. Cost: O(n log n)."""
        if self.strategy == "failover":
            return Pool(candidates, [InOrder(sorted(candidates, key=_priority))])
        tiers = _tiers(candidates) if self.strategy == "priority" else [list(candidates)]
        draws: list[Draw[C]] = []
        for tier in tiers:
            regular = [candidate for candidate in tier if candidate.config.weight]
            reserve = [candidate for candidate in tier if not candidate.config.weight]
            if regular:
                draws.append(self._draw(regular))
            if reserve:
                draws.append(Lottery(reserve, [1] * len(reserve), self._rng))
        return Pool(candidates, draws, [Rendezvous(tier) for tier in tiers])

    def _draw(self, tier: Sequence[C]) -> Draw[C]:
        weights = [candidate.config.weight for candidate in tier]
        evenly = [1] * len(tier)
        match self.strategy:
            case "weighted":
                return Turns(tier, weights, self._rng, CREDIT_GRANTS)
            case "round_robin":
                return Turns(tier, evenly, self._rng, 0)
            case "least_loaded":
                return LeastLoaded(tier, self._rng)
            case "random":
                return Lottery(tier, evenly, self._rng)
            case _:
                return Lottery(tier, weights, self._rng)


class Pool(Generic[C]):
    """The candidates for one model and the memory of the strategy about them.

    Made anew whenever the roster changes. Synchronous; `now` is trio time in seconds.
    """

    __slots__ = ("_draws", "_preferences", "_turns", "candidates")

    def __init__(
        self,
        candidates: Sequence[C],
        draws: Sequence[Draw[C]],
        preferences: Sequence[Rendezvous[C]] = (),
    ) -> None:
        """`preferences`: how each tier is ordered for a request with a key; none: as without."""
        self.candidates = tuple(candidates)
        self._draws = tuple(draws)
        self._preferences = tuple(preferences)
        self._turns = {
            name: draw for draw in draws if isinstance(draw, Turns) for name in draw.names()
        }

    def order(self, now: float) -> Iterator[C]:
        """Every candidate once, the one to ask first coming first. Changes no later order.

        Cost of the first: a few microseconds at most, whatever the size of the pool.
        """
        if len(self._draws) == 1:
            return self._draws[0].order(now)
        return chain.from_iterable(draw.order(now) for draw in self._draws)

    def preferring(self, key: int, now: float) -> Iterator[C]:
        """As `order`, but requests with the same key meet the same candidates first, tier by
        tier, so that one of them comes to hold what they have in common."""
        if not self._preferences:
            return self.order(now)
        return chain.from_iterable(tier.order(key) for tier in self._preferences)

    def granted(self, name: str) -> None:
        """Tells that the candidate of this name took a request: its turn or share is used."""
        turns = self._turns.get(name)
        if turns is not None:
            turns.granted(name)


class InOrder(Generic[C]):
    """Always the same order."""

    __slots__ = ("_candidates",)

    def __init__(self, candidates: Sequence[C]) -> None:
        self._candidates = candidates

    def order(self, now: float) -> Iterator[C]:
        return iter(self._candidates)


class Lottery(Generic[C]):
    """At random, each next one in proportion to its weight among those that are left."""

    __slots__ = ("_bounds", "_candidates", "_random", "_weights")

    def __init__(self, candidates: Sequence[C], weights: Sequence[int], rng: random.Random) -> None:
        assert min(weights) > 0
        self._candidates = candidates
        self._weights = weights
        self._bounds = list(accumulate(weights, initial=0.0))[1:]
        self._random = rng.random

    def order(self, now: float) -> Iterator[C]:
        """Draws with replacement and skips repeats, then orders all that are left at once.

        To skip repeats is to draw from those that are left. So is the order by exponential waiting
        times with the weights as rates (P. Efraimidis, P. Spirakis, "Weighted random sampling with
        a reservoir", 2006).
        """
        candidates, bounds, draw = self._candidates, self._bounds, self._random
        last = len(bounds) - 1
        first = bisect(bounds, draw() * bounds[-1], 0, last)
        yield candidates[first]
        if not last:
            return
        drawn = {first}
        for _ in range(DRAWS - 1):
            index = bisect(bounds, draw() * bounds[-1], 0, last)
            if index not in drawn:
                drawn.add(index)
                yield candidates[index]
        waits = [
            (-log(1.0 - draw()) / weight, index)
            for index, weight in enumerate(self._weights)
            if index not in drawn
        ]
        waits.sort()
        for _, index in waits:
            yield candidates[index]


class Turn(NamedTuple, Generic[C]):
    """`due`: the virtual time of its next turn. `stride`: virtual time between two of its turns.

    Ordered by `due`, then by `number`, which is unique.
    """

    due: float
    number: int
    stride: float
    candidate: C


class Turns(Generic[C]):
    """By virtual time: a candidate with a third of the weight has its turn at every third grant.

    Stride scheduling (C. Waldspurger, W. Weihl, 1995). Virtual time advances by about one with
    each grant, and only by grants: who is passed over because it is full keeps its turn and makes
    up for it, by at most `credit` virtual time. Cost of `order` and `granted`: about a microsecond
    each, plus moving pointers in one list.
    """

    __slots__ = ("_by_name", "_credit", "_queue", "_time")

    def __init__(
        self, candidates: Sequence[C], weights: Sequence[int], rng: random.Random, credit: float
    ) -> None:
        # Everyone starts somewhere within its first stride, as if it had been going on for long:
        # many small pools made at the same time must not all begin with the same candidate.
        total = sum(weights)
        strides = [total / weight for weight in weights]
        turns = [
            Turn(stride * rng.random(), number, stride, candidate)
            for number, (candidate, stride) in enumerate(zip(candidates, strides, strict=True))
        ]
        self._queue = sorted(turns)
        self._by_name = {turn.candidate.config.name: turn for turn in turns}
        self._credit = credit
        self._time = 0.0

    def names(self) -> Iterable[str]:
        return self._by_name

    def order(self, now: float) -> Iterator[C]:
        """By due time. The list is copied: a grant during the iteration must not repeat anyone."""
        return map(_candidate, self._queue.copy())

    def granted(self, name: str) -> None:
        turn = self._by_name[name]
        del self._queue[bisect_left(self._queue, turn)]
        taken = max(turn.due, self._time - self._credit)
        self._time = max(self._time, taken)
        turn = self._by_name[name] = turn._replace(due=taken + turn.stride)
        insort(self._queue, turn)


class LeastLoaded(Generic[C]):
    """The least utilised of a random stretch first, then all others by utilisation."""

    __slots__ = ("_candidates", "_random", "_ring")

    def __init__(self, candidates: Sequence[C], rng: random.Random) -> None:
        self._candidates = candidates
        shuffled = rng.sample(candidates, len(candidates))
        self._ring = shuffled + shuffled[: STRETCH - 1]
        self._random = rng.random

    def order(self, now: float) -> Iterator[C]:
        """The random start decides between equals, so that idle ones share the first requests."""
        size = len(self._candidates)
        start = int(self._random() * size)
        stretch = self._ring[start : start + min(STRETCH, size)]
        first = min(stretch, key=lambda candidate: candidate.headroom.utilization(now))
        yield first
        others = [candidate for candidate in self._candidates if candidate is not first]
        others.sort(key=lambda candidate: candidate.headroom.utilization(now))
        yield from others


class Rendezvous(Generic[C]):
    """Candidates in the order of their claim to a key; the same in every process.

    Weighted rendezvous hashing: each candidate's claim depends on the key and on its own name
    alone, so a new one takes over its own share of the keys and moves no other. The share of
    first places is proportional to the weight; weight 0 comes last. Cost: below a microsecond per
    candidate, because names are hashed once and only mixed with the key for each request.
    """

    __slots__ = ("_candidates",)

    def __init__(self, candidates: Sequence[C]) -> None:
        self._candidates = [
            (candidate, name_hash(candidate.config.name), candidate.config.weight)
            for candidate in candidates
        ]

    def order(self, key: int) -> list[C]:
        """`key`: 64 bits, well mixed, as from `key_hash`."""
        claims = [
            (_claim(key, name, weight), number)
            for number, (_, name, weight) in enumerate(self._candidates)
        ]
        claims.sort(reverse=True)
        return [self._candidates[number][0] for _, number in claims]


def key_hash(key: bytes) -> int:
    """64 bits for a key that a client chose."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def name_hash(name: str) -> int:
    """64 bits for an instance's name, unrelated to those of a key of the same text."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"instance").digest(), "big")


def _claim(key: int, name: int, weight: int) -> tuple[float, float]:
    mixed = (key ^ name) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93 & 0xFFFFFFFFFFFFFFFF
    # 52 bits and a half: a float strictly between 0 and 1, so the logarithm is below 0.
    uniform = ((mixed >> 12) + 0.5) / 2**52
    return weight / -log(uniform), uniform


def _tiers(candidates: Sequence[C]) -> list[list[C]]:
    """Grouped by priority, lowest number first."""
    by_priority = sorted(candidates, key=_priority)
    return [list(tier) for _, tier in groupby(by_priority, key=_priority)]


def _priority(candidate: Candidate) -> int:
    return candidate.config.priority


_candidate = attrgetter("candidate")
