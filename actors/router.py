"""The router: chooses an instance for each request, or says exactly why there is none.

It forwards and never asks: an ask goes on to the chosen instance with its reply slot, and comes
back as `Declined` if the instance knows better. What it reads of an instance is a read-only view
(`Headroom`), so choosing costs no message.

Who has to wait claims one limit of one instance, of those that nobody older has claimed the one
that has room soonest: nobody younger is let in there before it, however small. So large requests
are not starved by small ones, and what they can't use stays open to others.

Whether waiting is worth while is decided at once, from what is ahead: those who wait (`Bookings`)
and those who were refused and are expected back (`Promises`). A refusal tells when its turn would
have come, and who comes back then goes before those who have not asked yet.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

import trio

from actors.mailbox import MailboxClosed
from actors.messages import (
    NO_MODEL,
    Acquire,
    CapacityFreed,
    CountFirst,
    Declined,
    Explain,
    Explanation,
    InstanceRef,
    Met,
    Refused,
    RosterChanged,
    RouterControl,
    RouterRequest,
    Withdraw,
)
from actors.policy.bookings import Booking, Bookings
from actors.policy.explanation import Outlook, explanation
from actors.policy.headroom import NOBODY, Ahead, Obstacle
from actors.policy.line import NEVER, WaitingLine, lane
from actors.policy.promises import Promises
from actors.policy.refusal import LIMIT_REASONS, PASSING_REASONS, opens_by, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.mailbox import Mailbox
    from actors.policy.bookings import Limit
    from actors.policy.line import Lane
    from actors.policy.selection import Pool, Selector

TURN: Final = 64
"""Messages handled between two checkpoints: well under a millisecond of work."""
PAUSE_S: Final = 0.001
"""Between two looks at the line by the clock; an instance that has changed causes one at once."""
MAX_POOLS: Final = 1024
"""Models whose candidates are kept worked out; a generic instance takes any name."""


class RouterAddress:
    """Where the router is reached. `waiting`: how many requests wait for capacity now.

    The router alone writes `waiting`; an instance with nobody waiting need not announce anything.
    """

    __slots__ = ("mailbox", "waiting")

    def __init__(self, mailbox: Mailbox[RouterRequest, RouterControl]) -> None:
        self.mailbox = mailbox
        self.waiting = 0


class Router:
    """Owns the roster, the strategy's memory and the waiting line."""

    def __init__(self, address: RouterAddress, selector: Selector, max_waiting: int) -> None:
        self.address = address
        self._selector = selector
        self._instances: tuple[InstanceRef, ...] = ()
        self._by_name: dict[str, InstanceRef] = {}
        self._pools: dict[str, Pool[InstanceRef]] = {}
        self._line = WaitingLine(max_waiting)
        self._bookings = Bookings()
        self._promises = Promises()
        self._claims: dict[Limit, float | None] = {}
        """When the one who is first in line for a limit may be let in; None: at any moment."""
        self._retry_at = NEVER
        """When to look at the line again: somebody may be admitted, or has left."""
        self._sleeps_until = NEVER
        self._at_once = False
        """Whether the turn in hand is a requester's, who has nobody beside him."""

    async def run(self) -> None:
        """Runs until cancelled."""
        mailbox = self.address.mailbox
        while True:
            self._sleeps_until = wake_at = self._wake_at()
            if wake_at == NEVER:
                await mailbox.wait_nonempty(self.turn_at_once)
            else:
                with trio.move_on_at(wake_at):
                    await mailbox.wait_nonempty(self.turn_at_once)
            self.turn()
            if len(mailbox):
                await trio.lowlevel.checkpoint()

    def turn_at_once(self) -> bool:
        """A turn in a requester's task, and the instance's with it. Whether our own goes on."""
        self.turn(at_once=True)
        return len(self.address.mailbox) > 0 or self._wake_at() < self._sleeps_until

    def turn(self, *, at_once: bool = False) -> None:
        """Handles what is waiting, up to a bound, then the line if its time has come."""
        self._at_once = at_once
        mailbox, now = self.address.mailbox, trio.current_time()
        for _ in range(min(TURN, len(mailbox))):
            self.handle(mailbox.receive_nowait(), now)
        if now >= self._wake_at():
            self._serve_line(now)
            for ask in self._line.expired(now):
                self._bookings.ended(ask.lease_id, now)
                self._decide(ask, now, waited=True)
        self.address.waiting = len(self._line)

    def _wake_at(self) -> float:
        return min(self._retry_at, self._line.next_deadline())

    def handle(self, message: RouterRequest | RouterControl, now: float) -> None:
        match message:
            case Acquire():
                self._admit(self._recognised(message, now) if message.again else message, now)
            case Declined(ask):
                self._admit(ask, now)
            case CapacityFreed(name):
                self._look_at(name, now)
            case Explain():
                message.reply.set(self._explain(message.ask, now))
            case Withdraw(lease_id):
                self._bookings.release(lease_id)
                if self._line.leave(lease_id):
                    self._retry_at = now  # whoever stood behind it may be next
            case RosterChanged(instances):
                self._instances = instances
                self._by_name = {ref.config.name: ref for ref in instances}
                self._pools.clear()
                self._retry_at = now
            case _:
                assert_never(message)

    # -- one ask ---------------------------------------------------------------------------

    def _admit(self, ask: Acquire, now: float) -> None:
        """Forwards, answers, or puts into the line."""
        if not ask.reply.awaited:
            return
        if now >= self._retry_at:
            self._serve_line(now)
        met = self._decide(ask, now)
        if met is not None:
            self._line.join(_having(ask, met))
            self.address.waiting = len(self._line)

    def _recognised(self, ask: Acquire, now: float) -> Acquire:
        """Takes up a promise for one that says that it comes back. One that has to be counted
        first will ask once more."""
        model, promises = ask.demand.model, self._promises
        known = promises.take_up(model, now) if ask.demand.exact else promises.due(model, now)
        return ask if known else ask._replace(again=False)

    def _decide(self, ask: Acquire, now: float, *, waited: bool = False) -> Met | None:
        """Forwards or answers; what `ask` has met if it has to wait, and it has made its claims.

        If an exact count could make an instance take it that comes earlier in the strategy's
        order, that is the answer. `waited`: it is in the line, so there is time to let an
        instance finish what it has in hand, and to see what is left then.
        """
        pool = self._pool(ask.demand.model)
        met: dict[str, Obstacle] = {}
        for ref in self._in_order(ask, pool, now):
            name = ref.config.name
            if not _open_to(ask, name):
                continue
            obstacle = self._obstacle(ref, ask, now, waited=waited)
            if obstacle is None:
                if (waited and len(ref.mailbox)) or not self._offer(ref, ask, met):
                    obstacle = Obstacle("no_headroom", now + PAUSE_S)
                else:
                    pool.granted(name)
                    return None
            elif obstacle.reason == "count_first":
                ask.reply.set(CountFirst())
                return None
            met[name] = obstacle
        hopes = {name: o for name, o in met.items() if opens_by(o, ask.wait_until)}
        if not hopes or now >= ask.wait_until:
            none_left = (
                bool(pool.candidates) and not met and (ask.only is None or bool(ask.excluded))
            )
            self._refuse(ask, refusal(met.values(), excluded=none_left), met, now)
        elif not ask.demand.exact:  # counting later would cost the place in the line
            ask.reply.set(CountFirst())
        elif self._line.full() and not waited:
            self._refuse(ask, Refused("saturated"), met, now)
        else:
            self._hold(ask, hopes, now, waited=waited)
            return met
        return None

    def _offer(self, ref: InstanceRef, ask: Acquire, met: Met) -> bool:
        """Whether the instance's mailbox took it; a full one has to be given time."""
        try:
            ref.mailbox.offer(_having(ask, met) if met else ask, at_once=self._at_once)
        except (trio.WouldBlock, MailboxClosed):
            return False
        return True

    def _in_order(self, ask: Acquire, pool: Pool[InstanceRef], now: float) -> Iterable[InstanceRef]:
        """The candidates as `ask` has them tried, those that it avoids last."""
        key = ask.affinity
        refs = pool.order(now) if key is None else pool.preferring(key, now)
        avoided = ask.avoided
        return sorted(refs, key=lambda ref: ref.config.name in avoided) if avoided else refs

    def _obstacle(
        self, ref: InstanceRef, ask: Acquire, now: float, *, waited: bool = False
    ) -> Obstacle | None:
        """What keeps the instance from taking `ask`. `waited`: whoever is ahead has claimed what
        he needs."""
        if not (len(self._line) or len(self._promises)) or not ask.demand.model:
            return ref.headroom.assess(ask.demand, now)
        limit = _limit(ref, ask, now)
        ahead = NOBODY if waited else self._bookings.ahead(limit, ask.rank)
        obstacle = ref.headroom.assess(ask.demand, now, ahead)
        if obstacle is None:  # what is free now is kept for nobody who is not there
            return Obstacle("claimed", self._claims[limit]) if limit in self._claims else None
        if not waited:
            promised = self._ahead(limit, ask, ask.wait_until, now)
            if promised != ahead:
                ahead, obstacle = promised, ref.headroom.assess(ask.demand, now, promised)
        return self._expected(obstacle, ahead, now)

    def _expected(self, obstacle: Obstacle | None, ahead: Ahead, now: float) -> Obstacle | None:
        """`obstacle`, ending when it is expected to end with so much ahead."""
        if obstacle is None or obstacle.until is None or not ahead.requests:
            return obstacle
        return obstacle._replace(until=self._bookings.stretched(obstacle.until, now))

    def _ahead(self, limit: Limit, ask: Acquire, until: float, now: float) -> Ahead:
        """What others are to get of `limit` before `ask`, if it has its turn by `until`."""
        booked = self._bookings.ahead(limit, ask.rank)
        if ask.again:
            return booked
        promised = self._promises.ahead(limit, ask.priority, until, now)
        return Ahead(booked.tokens + promised.tokens, booked.requests + promised.requests)

    def _hold(self, ask: Acquire, hopes: dict[str, Obstacle], now: float, *, waited: bool) -> None:
        """Lets `ask` claim one of the limits that it hopes for, if there is one left to claim."""
        limits = {
            ref.config.name: _limit(ref, ask, now)
            for ref in self._pool(ask.demand.model).candidates
            if ref.config.name in hopes
        }
        by_time = sorted(limits, key=lambda name: hopes[name].until or now)
        if not waited:
            demand = ask.demand
            tokens = demand.input_likely + demand.output
            limit, until = limits[by_time[0]], hopes[by_time[0]].until or now
            booking = Booking(limit, ask.rank, tokens, now, until)
            self._bookings.book(ask.lease_id, booking)
        for name in by_time:
            if limits[name] not in self._claims:
                self._claims[limits[name]] = hopes[name].until
                break
        look_at = min(o.by or NEVER if o.until is None else o.until for o in hopes.values())
        self._retry_at = min(self._retry_at, max(look_at, now + PAUSE_S))

    def _refuse(self, ask: Acquire, answer: Refused, met: Met, now: float) -> None:
        """Answers, and if it is for a limit, promises the time at which its turn would come."""
        retry_at = answer.retry_at
        if answer.reason == "saturated":
            limit, retry_at = self._turn_of(ask, now)
            if limit is not None and retry_at is not None:
                self._promises.give(ask, limit, retry_at, now)
        ask.reply.set(replace(answer, retry_at=retry_at, met=_having(ask, met).met))

    def _turn_of(self, ask: Acquire, now: float) -> tuple[Limit | None, float | None]:
        """The limit at which `ask` would have its turn first, after all who are ahead of it, and
        when; None if nothing tells."""
        first: Limit | None = None
        first_at: float | None = None
        for ref in self._pool(ask.demand.model).candidates:
            if not _open_to(ask, ref.config.name):
                continue
            limit = _limit(ref, ask, now)
            ahead = self._ahead(limit, ask, inf, now)
            obstacle = self._expected(ref.headroom.assess(ask.demand, now, ahead), ahead, now)
            if obstacle is None:  # room beyond what is claimed; only the line is full
                at: float | None = now + PAUSE_S
            elif obstacle.reason not in LIMIT_REASONS:
                continue
            else:
                at = obstacle.until
            if at is not None and (first_at is None or at < first_at):
                first, first_at = limit, at
        return first, first_at

    def _explain(self, ask: Acquire, now: float) -> Explanation:
        if ask.again and not self._promises.due(ask.demand.model, now):
            ask = ask._replace(again=False)
        order = [
            ref
            for ref in self._in_order(ask, self._pool(ask.demand.model), now)
            if _open_to(ask, ref.config.name)
        ]
        met = {ref.config.name: self._obstacle(ref, ask, now) for ref in order}
        _, retry_at = self._turn_of(ask, now)
        outlook = Outlook(len(self._line), self._line.full(), retry_at)
        return explanation(self._instances, order, met, ask, outlook, now)

    def _pool(self, model: str) -> Pool[InstanceRef]:
        pool = self._pools.get(model)
        if pool is None:
            if len(self._pools) >= MAX_POOLS:
                del self._pools[next(iter(self._pools))]
            pool = self._pools[model] = self._selector.pool(
                [
                    ref
                    for ref in self._instances
                    if ref.config.enabled and (model == NO_MODEL or ref.config.serves(model))
                ]
            )
        return pool

    # -- the waiting line ------------------------------------------------------------------

    def _look_at(self, name: str, now: float) -> None:
        """One instance has changed: is that anything to those who are first in line? A change that
        is none to them costs one judgement each, not one by every instance."""
        ref = self._by_name.get(name)
        if ref is None:
            return
        not_served: set[str] = set()
        for ask in self._line.oldest_first(not_served):
            model = ask.demand.model
            if not ref.config.serves(model):
                not_served.add(model)
            elif name not in ask.excluded:
                obstacle = ref.headroom.assess(ask.demand, now)
                if obstacle is None or obstacle.reason not in PASSING_REASONS:
                    self._retry_at = now
                    return
                if obstacle.until is not None:
                    self._retry_at = min(self._retry_at, max(obstacle.until, now + PAUSE_S))

    def _serve_line(self, now: float) -> None:
        """Offers to those who wait, oldest first, what nobody before them has claimed."""
        self._retry_at = NEVER
        self._claims.clear()
        blocked: set[Lane] = set()
        for ask in self._line.oldest_first(blocked):
            if not ask.reply.awaited or self._decide(ask, now, waited=True) is None:
                self._bookings.ended(ask.lease_id, now)
                self._line.leave(ask.lease_id)
            elif all(
                _limit(ref, ask, now) in self._claims
                for ref in self._pool(ask.demand.model).candidates
                if ask.only is None or ref.config.name in ask.only
            ):
                blocked.add(lane(ask))

    def close(self) -> None:
        """Refuses everything that is still waiting, in the mailbox or in the line."""
        left = self.address.mailbox.close()
        for message in left:
            if isinstance(message, Explain):
                message.reply.fail(MailboxClosed())
        asks = [m for m in left if isinstance(m, Acquire)]
        asks += [m.ask for m in left if isinstance(m, Declined)]
        self._bookings.clear()
        for ask in [*asks, *self._line.clear()]:
            ask.reply.set(Refused("unavailable"))
        self.address.waiting = 0


def _open_to(ask: Acquire, name: str) -> bool:
    """Whether `ask` may go to the instance of this name at all."""
    return name not in ask.excluded and (ask.only is None or name in ask.only)


def _having(ask: Acquire, met: Met) -> Acquire:
    return ask._replace(met={**ask.met, **met})


def _limit(ref: InstanceRef, ask: Acquire, now: float) -> Limit:
    return ref.config.name, ref.headroom.limit_of(ask.demand.model, now)
