"""What an upstream's rate-limit headers teach about its limiter.

Each from evidence only, nothing assumed:

- **The limit.** A positive limit replaces the configured number while it is fresh: Azure lowers
  effective limits for hours under pressure, and the header is the only sign of it.
- **Others' use.** A count above our own view means that somebody else spends the same quota, or
  that the upstream estimates more than we do. So much is kept free from then on, until a whole
  minute has shown less: whoever takes a share of the quota will take it in the next minute, too.
- **The ratio** of the upstream's count to ours. Estimators differ, and some limiters give back
  what was not used. If for a whole period the count was never above some share of ours, that share
  is how it counts. The largest ratio of the period is what matters, because a limiter that resets
  each minute is far below our sliding view right after a reset and next to it just before. A
  ratio is never above 1: what exceeds our view is others' use.
- **The rule.** The ratio is found of three counts of ours: of what was reserved, of what was used,
  and of that from the end of a call on. The one that explains the upstream's with least room lost
  is the one to go by.
- **The growth** of its count from one request to the next, as a share of what they had reserved.
  Where requests are few, a limiter that resets each minute may never be seen next to our view, and
  would be taken for one that counts less. What it adds between two resets it can't count less than.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Final

from actors.policy.window import MAX_RESTORED_AMOUNT

FRESH_S: Final = 300.0
"""How long a limit seen in a header is believed without being seen again."""
PERIOD_S: Final = 75.0
"""Longer than any limiter's minute, whatever its phase and whatever our clock is off."""
MIN_SAMPLES: Final = 10
"""Comparisons within a period before it counts."""
SIGNAL: Final = 0.2
"""Share of the limit that our count must reach for a comparison to mean anything."""
MARGIN: Final = 1.05
"""On top of the largest ratio seen, for what was not seen."""
WORTHWHILE: Final = 0.95
"""A ratio above this is not worth acting on."""
FLOOR: Final = 0.05
MOST: Final = 1e6
"""No ratio that is read back is larger; beyond USED_MOST it makes no difference."""
USED_MARGIN: Final = 1.01
"""On top of the largest ratio to what was used."""
USED_MOST: Final = 1.08
"""A limiter that is further off follows another rule."""
LEAP: Final = 0.1
"""A count that falls by more than this share of the limit was reset; what leaves a sliding minute
from one request to the next is less, where requests are many."""
HOLD_S: Final = 10.0
HOLDS: Final = 8
"""Others' use is forgotten after 70 to 80 s: a limiter that resets each minute shows all of it
only at the minute's end."""
WEAR_S: Final = 120.0
"""A reduction after a refusal is gone after two minutes, but for a tenth of the limit: enforcement
that is spread over many machines refuses a little early now and then, which says little about the
next minutes."""
SLIGHT: Final = 0.1
SLIGHT_S: Final = 600.0
"""A tenth, or what there is of it, stands for five minutes and wears off in another five: its cost
is small, and what it stands for (an estimator a little above ours, enforcement that is spread over
machines) does not pass."""
LOWEST: Final = 0.5
"""Of the limit; a refusal at less has another reason, and its hint benches for that."""


class LearnedLimit:
    """One limit per minute: as configured, or as the upstream lately said.

    A refusal although there seemed to be room lowers it to what had been counted by then; that
    wears off steadily, and of a deeper reduction there is at no time less left than of a slighter.
    """

    __slots__ = ("_reduced", "_reduced_at", "_seen", "_seen_at", "_slight", "configured")

    def __init__(self, configured: int | None, slight: float = SLIGHT) -> None:
        """`slight`: the share of the limit by which a reduction stands for longer."""
        self.configured = configured
        self._slight = slight
        self._seen: int | None = None
        self._seen_at = 0.0
        self._reduced: int | None = None
        self._reduced_at = 0.0

    def observe(self, limit: int, now: float) -> None:
        """A positive limit from a header."""
        assert limit > 0
        self._seen = limit
        self._seen_at = now

    def reduce(self, to: int, now: float) -> None:
        """The upstream refused at a count of `to`. Never raises the limit."""
        limit = self.value(now)
        self._reduced = max(1, to if limit is None else min(to, limit))
        self._reduced_at = now

    def learned(self, now: float) -> int | None:
        """What the upstream said, while it is fresh."""
        if self._seen is not None and now - self._seen_at <= FRESH_S:
            return self._seen
        return None

    def stated(self, now: float) -> int | None:
        """As the upstream said or, if that is not known, as configured: whatever was refused."""
        learned = self.learned(now)
        return self.configured if learned is None else learned

    def value(self, now: float) -> int | None:
        """The limit now; None if none is known."""
        fresh = self._seen is not None and now - self._seen_at <= FRESH_S
        limit = self._seen if fresh else self.configured
        if self._reduced is None or limit is None or self._reduced >= limit:
            return limit
        cut, slight = self._cuts(limit, self._reduced)
        since_s = now - self._reduced_at
        left = max(cut * (1 - since_s / WEAR_S), slight * min(1.0, 2 - 2 * since_s / SLIGHT_S))
        return limit - ceil(max(0.0, left))

    def reaches(self, tokens: int, now: float) -> float:
        """When a reduction will have worn off so far that `tokens` are within the limit; `now` if
        they are, or would not be without it either."""
        limit, reduced = self.stated(now), self._reduced
        if limit is None or reduced is None or not reduced < tokens <= limit:
            return now
        cut, slight = self._cuts(limit, reduced)
        spare = limit - tokens
        after_s = WEAR_S * (1 - spare / cut)
        if slight > spare:
            after_s = max(after_s, SLIGHT_S * (1 - spare / (2 * slight)))
        return max(now, self._reduced_at + after_s)

    def export(self, now: float) -> dict[str, float]:
        """What still counts of it, each with its age in seconds."""
        found: dict[str, float] = {}
        if self._seen is not None and now - self._seen_at <= FRESH_S:
            found |= {"told": self._seen, "told_s": round(now - self._seen_at, 1)}
        if self._reduced is not None and now - self._reduced_at < SLIGHT_S:
            found |= {"reduced": self._reduced, "reduced_s": round(now - self._reduced_at, 1)}
        return found

    def restore(self, exported: object, older_s: float, now: float) -> None:
        """Takes back an `export` that was made `older_s` seconds ago; ignores what is malformed."""
        told, reduced = _aged(exported, "told"), _aged(exported, "reduced")
        if told is not None:
            self._seen, self._seen_at = told[0], now - told[1] - older_s
        if reduced is not None:
            self._reduced, self._reduced_at = reduced[0], now - reduced[1] - older_s

    def _cuts(self, limit: int, reduced: int) -> tuple[float, float]:
        """By how much a refusal lowered it, and how much of that stands for longer."""
        cut = min(limit - reduced, (1 - LOWEST) * limit)
        return cut, min(cut, self._slight * limit)

    def forget(self) -> None:
        """What was learned was about another upstream."""
        self._seen = self._reduced = None


class CountRatio:
    """The largest ratio of the upstream's count to ours over the last one to two periods."""

    __slots__ = ("_begun_at", "_current", "_last", "_samples")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing is known: the upstream counts as we do."""
        self._last: float | None = None
        self._current = 0.0
        self._samples = 0
        self._begun_at: float | None = None

    def observe(self, upstream_count: float, our_count: float, limit: int, now: float) -> None:
        """Compares the counts at one moment. What is too small to tell is left out."""
        if our_count < SIGNAL * limit:
            return
        if self._begun_at is None:
            self._begun_at = now
        elif now - self._begun_at >= PERIOD_S:
            self._last = self._current if self._samples >= MIN_SAMPLES else None
            self._current, self._samples, self._begun_at = 0.0, 0, now
        self._current = max(self._current, upstream_count / our_count)
        self._samples += 1

    def export(self) -> float | None:
        """The largest ratio that a whole period has shown."""
        return None if self._last is None else round(max(self._last, self._current), 4)

    def restore(self, exported: object) -> None:
        """Takes back an `export`; ignores what is malformed."""
        if isinstance(exported, int | float) and 0 <= exported <= MOST:  # false for NaN
            self._last = float(exported)

    @property
    def known(self) -> bool:
        """Whether a whole period has shown anything."""
        return self._last is not None

    def value(self) -> float:
        """By what our count is to be multiplied; 1.0 until a whole period has shown less."""
        if self._last is None:
            return 1.0
        largest = max(self._last, self._current) * MARGIN
        return 1.0 if largest >= WORTHWHILE else max(largest, FLOOR)

    def of_used(self) -> float | None:
        """By what a count of what was used is to be multiplied; None as long as, for all that is
        known, the upstream does not count that."""
        if self._last is None:
            return None
        largest = max(self._last, self._current)
        return None if largest > USED_MOST else max(1.0, largest) * USED_MARGIN


class CountGrowth:
    """By how much the upstream's count grew for each token reserved, over the last whole period.
    Of a sliding minute that is little, because as much leaves as is added; a fixed one grows by
    all that it counts."""

    __slots__ = ("_begun_at", "_count", "_grown", "_reserved", "_samples", "_sent", "_share")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._share = 0.0
        self._count = self._sent = 0
        self._begin(0.0)

    def _begin(self, now: float) -> None:
        self._begun_at = now
        self._grown = self._reserved = self._samples = 0

    def observe(self, upstream_count: int, sent: int, limit: int, now: float) -> None:
        """`sent`: all that was ever reserved, with the request whose answer shows the count. An
        answer that comes after that of a later request says nothing."""
        reserved, grown = sent - self._sent, upstream_count - self._count
        if reserved <= 0:
            return
        self._sent, self._count = sent, upstream_count
        if grown < -LEAP * limit:
            return
        if now - self._begun_at >= PERIOD_S:
            enough = self._samples >= MIN_SAMPLES
            self._share = min(1.0, max(0.0, self._grown / self._reserved)) if enough else 0.0
            self._begin(now)
        self._grown += grown
        self._reserved += reserved
        self._samples += 1

    def restore(self, exported: object) -> None:
        """Takes back a `value`; ignores what is malformed."""
        if isinstance(exported, int | float) and 0 <= exported <= 1:
            self._share = float(exported)

    def value(self) -> float:
        """Between 0 and 1: the upstream counts no less than that of what we reserve."""
        return self._share


class OthersUse:
    """The most that others' use has been lately: by how much the upstream's count exceeded ours."""

    __slots__ = ("_head", "_highest", "_value")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._highest = [0] * HOLDS
        self._head = 0
        self._value = 0

    def observe(self, excess: int, now: float) -> None:
        if excess <= 0:
            return
        self._advance(now)
        slot = self._head % HOLDS
        if excess > self._highest[slot]:
            self._highest[slot] = excess
            self._value = max(self._value, excess)

    def value(self, now: float) -> int:
        if self._value:
            self._advance(now)
        return self._value

    def falls_to(self, most: int, now: float) -> float:
        """When it will be at most so much, if no more is seen. `most`: at least 0."""
        self._advance(now)
        for slot in range(self._head, self._head - HOLDS, -1):
            if self._highest[slot % HOLDS] > most:
                return max(now, (slot + HOLDS) * HOLD_S)
        return now

    def _advance(self, now: float) -> None:
        head = floor(now / HOLD_S)
        if head <= self._head:
            return
        for slot in range(max(self._head + 1, head - HOLDS + 1), head + 1):
            self._highest[slot % HOLDS] = 0
        self._head = head
        self._value = max(self._highest)


def _aged(exported: object, name: str) -> tuple[int, float] | None:
    """An amount and its age in seconds, from an export; None if they are missing or malformed."""
    if not isinstance(exported, dict):
        return None
    amount, age_s = exported.get(name), exported.get(f"{name}_s")
    if type(amount) is not int or not 0 < amount <= MAX_RESTORED_AMOUNT:
        return None
    if not isinstance(age_s, int | float) or not 0 <= age_s <= SLIGHT_S:  # false for NaN
        return None
    return amount, age_s
