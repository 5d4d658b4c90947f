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

from array import array
from math import floor, inf, nextafter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_RESTORED_AMOUNT = 2**53
"""Of a window as a whole: more than any limit, and the last integer up to which a float still
counts in ones."""
BLOCK = 10
"""Slots that are also summed together: whoever looks for one passes over few sums, and the state
file has one amount for each (a second of a minute's window)."""
BEFORE_ALL = -(2**63)
"""A slot before any time, so that the first call decides where the clock stands."""


class Amounts(NamedTuple):
    """What a window holds, by the block, newest first; nothing from the last one with anything on.

    The first block is the running one, of age 0. The second one ended `second_s` seconds ago (less
    than nothing, if the window has seen a later time than it was asked for), each further one
    `step_s` before that. So everything is at least as old as its block.
    """

    second_s: float
    step_s: float
    amounts: list[int]


class SlidingSum:
    """The sum of the non-negative amounts added during the last `span_s` seconds.

    Clock: every `now` is trio time in seconds. A `now` before the latest one seen counts as the
    latest. Never blocks. Cost: O(1) within a slot; a step to a later slot clears those that have
    left, at most the whole ring once.
    """

    __slots__ = ("_blocks", "_cells", "_ends_at", "_head", "_per_s", "_ring", "_size", "_total")

    def __init__(self, span_s: float = 60.0, slots: int = 600) -> None:
        assert span_s > 0
        assert slots > 0
        self._per_s = slots / span_s
        self._size = slots + 1
        # Whole blocks, one more than are full: no block ever holds the oldest slot and the newest.
        self._cells = (slots // BLOCK + 1 + (slots % BLOCK > 0)) * BLOCK
        self._clear()
        self._head = BEFORE_ALL  # number of the running slot; slot n begins at n / _per_s
        self._ends_at = -inf  # when the running slot does: most calls come before

    def _clear(self) -> None:
        # Machine integers: a hundred instances have a thousand windows, and what lies together is
        # read at once.
        self._ring = array("q", bytes(8 * self._cells))
        self._blocks = array("q", bytes(8 * (self._cells // BLOCK)))
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
        index = self._head % self._cells
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
        index = slot % self._cells
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
        ring, blocks = self._ring, self._blocks
        oldest = self._head - self._size + 1
        block = oldest // BLOCK
        while excess > (held := blocks[block % len(blocks)]):
            excess -= held
            block += 1
        slot = max(oldest, block * BLOCK)
        while (excess := excess - ring[slot % self._cells]) > 0:
            slot += 1
        return self._begin(slot + self._size)

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

    def export(self, now: float) -> Amounts:
        """What `restore` needs: an amount of it is counted for at least `span_s`, and at most
        `BLOCK` slots longer than it would have been. Cost: some 3 µs."""
        self.total(now)
        running = self._head // BLOCK
        split = running % len(self._blocks) + 1
        amounts = self._blocks[split:] + self._blocks[:split]
        amounts.reverse()
        held = amounts.tolist()
        while held and not held[-1]:
            held.pop()
        return Amounts(now - running * BLOCK / self._per_s, BLOCK / self._per_s, held)

    def restore(self, entries: Iterable[object], now: float) -> None:
        """Adds (age in seconds at `now`, amount) pairs.

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
        most = MAX_RESTORED_AMOUNT - self._total
        if not (age_s <= self._size / self._per_s and 0 < amount <= most):
            return
        slot = min(self._head, floor((now - max(0.0, age_s)) * self._per_s))
        if slot > self._head - self._size:
            index = slot % self._cells
            self._ring[index] += amount
            self._blocks[index // BLOCK] += amount
            self._total += amount

    def _advance(self, head: int) -> None:
        """Makes `head` the running slot and drops what has left."""
        if head - self._head >= self._size:
            if self._total:
                self._clear()
        elif self._total:
            ring, blocks, cells = self._ring, self._blocks, self._cells
            oldest = self._head - self._size + 1
            for slot in range(oldest, oldest + head - self._head):
                index = slot % cells
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
