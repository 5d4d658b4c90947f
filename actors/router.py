"""The router: chooses an instance for each request, or says exactly why there is none.

It forwards and never asks: an ask goes on to the chosen instance with its reply slot, and comes
back as `Declined` if the instance knows better. What it reads of an instance is a read-only view
(`Headroom`), so choosing costs no message.

Who has to wait claims one instance, of those that nobody older has claimed the one that can take
it soonest: nobody younger is sent there before it, whatever the model and however small. So large
requests are not starved by small ones, and what they can't use stays open to others.
"""

from __future__ import annotations

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
    Refused,
    RosterChanged,
    RouterControl,
    RouterRequest,
    Withdraw,
)
from actors.policy.explanation import explanation
from actors.policy.headroom import Obstacle
from actors.policy.line import NEVER, WaitingLine, lane
from actors.policy.refusal import earliest, opens_by, refusal

if TYPE_CHECKING:
    from actors.mailbox import Mailbox
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
        self._pools: dict[str, Pool[InstanceRef]] = {}
        self._line = WaitingLine(max_waiting)
        self._claims: dict[str, float | None] = {}
        """Instance → when it may take the one who waits for it; None: at any moment."""
        self._retry_at = NEVER
        """When to look at the line again: somebody may be admitted, or has left."""

    async def run(self) -> None:
        """Runs until cancelled."""
        mailbox = self.address.mailbox
        while True:
            wake_at = self._wake_at()
            if wake_at == NEVER:
                await mailbox.wait_nonempty()
            else:
                with trio.move_on_at(wake_at):
                    await mailbox.wait_nonempty()
            self.turn()
            if len(mailbox):
                await trio.lowlevel.checkpoint()

    def turn(self) -> None:
        """Handles what is waiting, up to a bound, then the line if its time has come."""
        mailbox, now = self.address.mailbox, trio.current_time()
        for _ in range(min(TURN, len(mailbox))):
            self.handle(mailbox.receive_nowait(), now)
        if now >= self._wake_at():
            self._serve_line(now)
            for ask in self._line.expired(now):
                self._decide(ask, now, waited=True)
        self.address.waiting = len(self._line)

    def _wake_at(self) -> float:
        return min(self._retry_at, self._line.next_deadline())

    def handle(self, message: RouterRequest | RouterControl, now: float) -> None:
        match message:
            case Acquire():
                self._admit(message, now)
            case Declined(ask):
                self._admit(ask, now)
            case CapacityFreed():
                self._retry_at = now
            case Explain():
                message.reply.set(self._explain(message, now))
            case Withdraw(lease_id):
                if self._line.leave(lease_id):
                    self._retry_at = now  # whoever stood behind it may be next
            case RosterChanged(instances):
                self._instances = instances
                self._pools.clear()
                self._retry_at = now
            case _:
                assert_never(message)

    # -- one ask ---------------------------------------------------------------------------

    def _admit(self, ask: Acquire, now: float) -> None:
        """Forwards, answers, or puts into the line."""
        if ask.reply.abandoned:
            return
        if now >= self._retry_at:
            self._serve_line(now)
        if not self._decide(ask, now):
            self._line.join(ask)
            self.address.waiting = len(self._line)

    def _decide(self, ask: Acquire, now: float, *, waited: bool = False) -> bool:
        """Forwards or answers; False if `ask` has to wait, and it has made its claims.

        If an exact count could make an instance take it that comes earlier in the strategy's
        order, that is the answer. `waited`: it is in the line, so there is time to let an
        instance finish what it has in hand, and to see what is left then.
        """
        pool = self._pool(ask.demand.model)
        met: dict[str, Obstacle] = {}
        key, only = ask.affinity, ask.only
        for ref in pool.order(now) if key is None else pool.preferring(key, now):
            name = ref.config.name
            if name in ask.excluded or (only is not None and name not in only):
                continue
            obstacle = ref.headroom.assess(ask.demand, now)
            if obstacle is None:
                if name in self._claims and ask.demand.model:
                    obstacle = Obstacle("claimed", self._claims[name])
                elif (waited and len(ref.mailbox)) or not _offer(ref, ask):
                    obstacle = Obstacle("no_headroom", now + PAUSE_S)
                else:
                    pool.granted(name)
                    return True
            elif obstacle.reason == "count_first":
                ask.reply.set(CountFirst())
                return True
            met[name] = obstacle
        hopes = {name: o for name, o in met.items() if opens_by(o, ask.wait_until)}
        if hopes and now < ask.wait_until:
            return self._answer_or_hold(ask, hopes, now, waited=waited)
        tried_all = bool(pool.candidates) and not met and (only is None or bool(ask.excluded))
        ask.reply.set(refusal(met.values(), excluded=tried_all))
        return True

    def _answer_or_hold(
        self, ask: Acquire, hopes: dict[str, Obstacle], now: float, *, waited: bool
    ) -> bool:
        """False once `ask` has claimed one of the instances that it hopes for, if there is one
        left to claim; True if it was answered.

        Only exact demands wait: counting later would cost the place in the line.
        """
        soonest = earliest(hopes.values())
        if not ask.demand.exact:
            ask.reply.set(CountFirst())
            return True
        if self._line.full() and not waited:
            ask.reply.set(Refused("saturated", soonest))
            return True
        until = {name: o.until for name, o in hopes.items() if name not in self._claims}
        if until:
            name = min(until, key=lambda name: until[name] or now)
            self._claims[name] = until[name]
        if soonest is not None:
            self._retry_at = min(self._retry_at, max(soonest, now + PAUSE_S))
        return False

    def _explain(self, ask: Explain, now: float) -> Explanation:
        return explanation(
            self._instances,
            list(self._pool(ask.demand.model).order(now)),
            self._claims,
            ask.demand,
            wait_until=ask.wait_until,
            waiting=len(self._line),
            now=now,
        )

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

    def _serve_line(self, now: float) -> None:
        """Offers to those who wait, oldest first, what nobody before them has claimed."""
        self._retry_at = NEVER
        self._claims.clear()
        blocked: set[Lane] = set()
        for ask in self._line.oldest_first(blocked):
            if ask.reply.abandoned or self._decide(ask, now, waited=True):
                self._line.leave(ask.lease_id)
                continue
            open_to = (ref.config.name for ref in self._pool(ask.demand.model).candidates)
            if all(name in self._claims for name in ask.only or open_to):
                blocked.add(lane(ask))

    def close(self) -> None:
        """Refuses everything that is still waiting, in the mailbox or in the line."""
        left = self.address.mailbox.close()
        for message in left:
            if isinstance(message, Explain):
                message.reply.fail(MailboxClosed())
        asks = [m for m in left if isinstance(m, Acquire)]
        asks += [m.ask for m in left if isinstance(m, Declined)]
        for ask in [*asks, *self._line.clear()]:
            ask.reply.set(Refused("unavailable"))
        self.address.waiting = 0


def _offer(ref: InstanceRef, ask: Acquire) -> bool:
    """Whether the instance's mailbox took it; a full one has to be given time."""
    try:
        ref.mailbox.offer(ask)
    except (trio.WouldBlock, MailboxClosed):
        return False
    return True
