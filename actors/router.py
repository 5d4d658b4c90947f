"""The router: chooses an instance for each request, or says exactly why there is none.

It forwards and never asks: an ask goes on to the chosen instance with its reply slot, and comes
back as `Declined` if the instance knows better. What it reads of an instance is a read-only view
(`Headroom`), so choosing costs no message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

import trio

from actors.messages import (
    Acquire,
    CapacityFreed,
    CountFirst,
    Declined,
    InstanceRef,
    Refused,
    RosterChanged,
    RouterControl,
    RouterRequest,
    Withdraw,
)
from actors.policy.line import NEVER, WaitingLine
from actors.policy.refusal import refusal

if TYPE_CHECKING:
    from actors.mailbox import Mailbox
    from actors.policy.selection import Pool, Selector

TURN: Final = 64
"""Messages handled between two checkpoints: well under a millisecond of work."""
PAUSE_S: Final = 0.001
"""Between two looks at the line by the clock; capacity that is freed wakes it at once."""
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
        self._retry_at = NEVER
        """When the head of some line could be admitted by the passing of time alone."""

    async def run(self) -> None:
        """Runs until cancelled."""
        mailbox = self.address.mailbox
        while True:
            wake_at = min(self._retry_at, self._line.next_deadline())
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
        self._expire(now)
        if now >= self._retry_at:
            self._serve_line(now)
        self.address.waiting = len(self._line)

    def handle(self, message: RouterRequest | RouterControl, now: float) -> None:
        match message:
            case Acquire():
                self._admit(message, now)
            case Declined(ask):
                self._admit(ask, now, returned=True)
            case CapacityFreed():
                self._retry_at = now
            case Withdraw(lease_id):
                self._line.leave(lease_id)
                self._retry_at = now  # whoever stood behind it may be next
            case RosterChanged(instances):
                self._instances = instances
                self._pools.clear()
                self._retry_at = now
            case _:
                assert_never(message)

    # -- one ask ---------------------------------------------------------------------------

    def _admit(self, ask: Acquire, now: float, *, returned: bool = False) -> None:
        """Forwards, queues or refuses. `returned`: it had its turn and an instance sent it back."""
        if ask.reply.abandoned:
            return
        if self._line.has(ask.demand.model) and not returned:
            # Someone was here first: no overtaking, but no false hope either.
            answer = self._verdict(ask, now)
            if answer is None:
                self._queue_or_count(ask)
                return
        else:
            if self._forward(ask, now):
                return
            answer = self._verdict(ask, now)
        match answer:
            case Refused(reason="saturated", retry_at=float(retry_at)) if (
                retry_at <= ask.wait_until
            ):
                self._queue_or_count(ask, retry_at=retry_at, front=returned)
            case Refused() | CountFirst():
                ask.reply.set(answer)
            case None:
                # Admissible, but every mailbox was full: its senders must slow down.
                ask.reply.set(Refused("overloaded", now + 1.0))

    def _forward(self, ask: Acquire, now: float) -> bool:
        """Sends `ask` to the first instance in the strategy's order that can take it.

        False if there is none, or if an exact count could make an earlier one in the order take
        it after all.
        """
        demand, excluded = ask.demand, ask.excluded
        pool = self._pool(demand.model)
        for ref in pool.order(now):
            if excluded and ref.config.name in excluded:
                continue
            obstacle = ref.headroom.assess(demand, now)
            if obstacle is None:
                try:
                    ref.mailbox.offer(ask)
                except trio.WouldBlock:
                    continue
                pool.granted(ref.config.name)
                return True
            if obstacle.reason == "count_first":
                return False
        return False

    def _verdict(self, ask: Acquire, now: float) -> Refused | CountFirst | None:
        """What to say of `ask` as things stand; None if some instance could take it now."""
        pool = self._pool(ask.demand.model)
        obstacles = [
            ref.headroom.assess(ask.demand, now)
            for ref in pool.candidates
            if ref.config.name not in ask.excluded
        ]
        return refusal(obstacles, excluded=bool(pool.candidates) and not obstacles)

    def _pool(self, model: str) -> Pool[InstanceRef]:
        pool = self._pools.get(model)
        if pool is None:
            if len(self._pools) >= MAX_POOLS:
                del self._pools[next(iter(self._pools))]
            pool = self._pools[model] = self._selector.pool(
                [ref for ref in self._instances if ref.config.enabled and ref.config.serves(model)]
            )
        return pool

    # -- the waiting line ------------------------------------------------------------------

    def _queue_or_count(
        self, ask: Acquire, *, retry_at: float = NEVER, front: bool = False
    ) -> None:
        """Only exact demands wait: counting later would cost the place in the line."""
        if not ask.demand.exact:
            ask.reply.set(CountFirst())
        elif self._line.full():
            ask.reply.set(Refused("saturated", min(retry_at, ask.wait_until)))
        else:
            self._line.join(ask, front=front)
            self.address.waiting = len(self._line)
            self._retry_at = min(self._retry_at, retry_at)

    def _expire(self, now: float) -> None:
        for ask in self._line.expired(now):
            answer = self._verdict(ask, now)
            ask.reply.set(answer if isinstance(answer, Refused) else Refused("saturated", now))

    def _serve_line(self, now: float) -> None:
        """Offers capacity to the head of each model's line until one of them must wait on."""
        self._retry_at = NEVER
        for model in self._line.models():
            while (ask := self._line.head(model)) is not None:
                if self._forward(ask, now):
                    self._line.leave(ask.lease_id)
                    continue
                answer = self._verdict(ask, now)
                if isinstance(answer, Refused) and answer.reason == "saturated":
                    retry_at = NEVER if answer.retry_at is None else answer.retry_at
                    self._retry_at = min(self._retry_at, max(retry_at, now + PAUSE_S))
                    break
                self._line.leave(ask.lease_id)
                ask.reply.set(answer or Refused("overloaded", now + 1.0))

    def close(self) -> None:
        """Refuses everything that is still waiting, in the mailbox or in the line."""
        left = self.address.mailbox.close()
        asks = [m for m in left if isinstance(m, Acquire)]
        asks += [m.ask for m in left if isinstance(m, Declined)]
        for ask in [*asks, *self._line.clear()]:
            ask.reply.set(Refused("unavailable"))
        self.address.waiting = 0
