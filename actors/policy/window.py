"""The sum of what was added during the last minute, in fixed memory.

Time is cut into slots; the ring holds the amount of each. With `slots` of `span_s / slots`
seconds each, `slots + 1` of them are counted: the running one and the `slots` before it. So an
amount leaves the sum when its whole slot is older than `span_s`, never before: it is counted for
at least `span_s` seconds and at most one slot longer. Whoever admits by `total + amount <= limit`
therefore keeps every interval of `span_s`, wherever it begins, within the limit; what that costs
is one slot of delay, 0.17 % of the minute by default.

A decaying average needs less memory, but it lets more than the limit through after a pause; a
list of timestamps is exact, but grows with the traffic.
"""

from __future__ import annotations

from math import floor, inf, nextafter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_RESTORED_AMOUNT = 2**53
"""More than any limit, and the last integer up to which a float still counts in ones."""
BLOCK = 10
"""Slots that are also summed together: whoever looks for one passes over few sums, and the state
file has one amount for each (a second of a minute's window)."""
BEFORE_ALL = -(2**63)
"""A slot before any time, so that the first call decides where the clock stands."""


class SlidingSum:
    """The sum of the non-negative amounts added during the last `span_s` seconds.

    Clock: every `now` is trio time in seconds. A `now` before the latest one seen counts as the
    latest. Never blocks. Cost: O(1) within a slot; a step to a later slot clears those that have
    left, at most the whole ring once.
    """

    __slots__ = ("_blocks", "_ends_at", "_head", "_per_s", "_ring", "_size", "_total")

    def __init__(self, span_s: float = 60.0, slots: int = 600) -> None:
        assert span_s > 0
        assert slots > 0
        self._per_s = slots / span_s
        self._size = slots + 1
        self._clear()
        self._head = BEFORE_ALL  # number of the running slot; slot n begins at n / _per_s
        self._ends_at = -inf  # when the running slot does: most calls come before

    def _clear(self) -> None:
        self._ring = [0] * self._size
        self._blocks = [0] * (self._size // BLOCK + 1)
        self._total = 0

    def total(self, now: float) -> int:
        """The sum at `now`."""
        if now >= self._ends_at:
            self._advance(floor(now * self._per_s))
        return self._total

    @property
    def latest(self) -> int:
        """The sum at the latest `now` seen."""
        return self._total

    def add(self, amount: int, now: float) -> int:
        """Counts `amount` from `now` on. Returns its slot, with which `correct` can amend it.

        Slot numbers never decrease.
        """
        assert amount >= 0
        if now >= self._ends_at:
            self._advance(floor(now * self._per_s))
        index = self._head % self._size
        self._ring[index] += amount
        self._blocks[index // BLOCK] += amount
        self._total += amount
        return self._head

    def correct(self, slot: int, delta: int, now: float) -> None:
        """Makes what was added in `slot` larger or smaller by `delta`, as if it had always been.

        Does nothing if the slot has left the window. To take more out of a slot than was put in
        is an AssertionError, and changes nothing.
        """
        self.total(now)
        assert slot <= self._head
        if slot <= self._head - self._size:
            return
        index = slot % self._size
        assert self._ring[index] + delta >= 0
        self._ring[index] += delta
        self._blocks[index // BLOCK] += delta
        self._total += delta

    def falls_to(self, target: int, now: float) -> float | None:
        """The first time from `now` on at which the sum is at most `target` if nothing is added.

        At exactly that time `total` is at most `target`. None when `target` is negative.
        Cost: some 5 µs, for the blocks up to the slot that makes the difference, and in its own.
        """
        if target < 0:
            return None
        excess = self.total(now) - target
        if excess <= 0:
            return now
        ring, blocks, size = self._ring, self._blocks, self._size
        # The oldest slot leaves when the next one begins, the one after it a slot later. The block
        # that holds the oldest holds the newest, too; it is never passed over, because by then
        # what is left of the excess is within it.
        begins = self._head + 1
        index = begins % size
        while True:
            if not index % BLOCK and excess > blocks[index // BLOCK]:
                excess -= blocks[index // BLOCK]
                passed = min(BLOCK, size - index)
            else:
                excess -= ring[index]
                if excess <= 0:
                    return self._begin(begins)
                passed = 1
            begins += passed
            index = (index + passed) % size

    def fits(self, amount: int, limit: int, now: float, ahead: int = 0) -> float | None:
        """When `amount` can be added within `limit`, if `ahead` is added before it, and all of it
        as soon as it fits. None if it never can.

        What is added meanwhile leaves a span later: the sum of more than one limit takes rounds.
        """
        if amount > limit:
            return None
        if not ahead:
            return self.falls_to(limit - amount, now)
        rounds, last = divmod(ahead + amount - 1, limit)
        at = self.falls_to(limit - last - 1, now)
        assert at is not None
        return at + rounds * self._size / self._per_s

    def export(self, now: float) -> list[tuple[float, int]]:
        """(age in seconds, amount) of what is not empty, oldest first; a block's slots together.

        The age is that of the end of the last of them, the least that the age of anything in them
        can be: a restored amount is never counted for less than `span_s`, and at most `BLOCK`
        slots longer than it would have been. Cost: some 10 µs.
        """
        self.total(now)
        ring, size, blocks = self._ring, self._size, self._blocks
        newest = self._head % size
        split = newest // BLOCK  # the block that holds the newest slot holds the oldest, too
        begin, end = split * BLOCK, min((split + 1) * BLOCK, size)
        found = [(end - 1, sum(ring[newest + 1 : end]))]
        found += [
            (min((block + 1) * BLOCK, size) - 1, blocks[block])
            for block in (*range(split + 1, len(blocks)), *range(split))
        ]
        found.append((newest, sum(ring[begin : newest + 1])))
        return [
            (max(0.0, now - (self._head - (newest - last) % size + 1) / self._per_s), amount)
            for last, amount in found
            if amount
        ]

    def restore(self, entries: Iterable[object], now: float) -> None:
        """Adds what `export` gave, each entry with the age that it has at `now`.

        Negative ages count as zero. What is too old, or no pair of an age and a sensible amount,
        is left out: a damaged record costs accuracy, not the start.
        """
        self.total(now)
        for entry in entries:
            match entry:
                case [bool(), _] | [_, bool()]:
                    continue
                case [float() | int() as age, int() as amount]:
                    self._restore(age, amount, now)

    def _restore(self, age_s: float, amount: int, now: float) -> None:
        # Both comparisons are false for NaN, and exact for integers too large for a float.
        if not (age_s <= self._size / self._per_s and 0 < amount <= MAX_RESTORED_AMOUNT):
            return
        slot = min(self._head, floor((now - max(0.0, age_s)) * self._per_s))
        if slot > self._head - self._size:
            index = slot % self._size
            self._ring[index] += amount
            self._blocks[index // BLOCK] += amount
            self._total += amount

    def _advance(self, head: int) -> None:
        """Makes `head` the running slot and drops what has left."""
        if head - self._head >= self._size:
            if self._total:
                self._clear()
        elif self._total:
            ring, blocks, size = self._ring, self._blocks, self._size
            for slot in range(self._head + 1, head + 1):
                index = slot % size
                amount = ring[index]
                if amount:
                    blocks[index // BLOCK] -= amount
                    self._total -= amount
                    ring[index] = 0
        self._head = head
        self._ends_at = self._begin(head + 1)

    def _begin(self, slot: int) -> float:
        """The first instant that `total` assigns to `slot`, whatever the division rounds to."""
        begin = slot / self._per_s
        while floor(begin * self._per_s) < slot:
            begin = nextafter(begin, inf)
        return begin
