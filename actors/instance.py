"""One instance as an actor: it alone grants leases on its standing and learns from their ends.

Every message is handled without a checkpoint, so each is one atomic change. The standing and the
mailbox belong to the supervisor and survive this actor's task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

import trio

from actors.errors import InstanceCrashed
from actors.messages import (
    Acquire,
    AmendState,
    CapacityFreed,
    Declined,
    Grant,
    InstanceControl,
    InstanceRequest,
    Observe,
    Outcome,
    Reconfigure,
    Refused,
    Retire,
    Settle,
)

if TYPE_CHECKING:
    from actors.clock import WallClock
    from actors.mailbox import Mailbox
    from actors.policy.standing import Standing
    from actors.router import RouterAddress
    from actors.state_log import StateLog

TURN: Final = 64
"""Messages handled between two checkpoints: well under a millisecond of work."""
_NEVER_SENT: Final = Outcome("cancelled", reached=False)
_UNREMARKABLE: Final = frozenset({"success", "cancelled", "client_error", "unsupported"})
"""Outcomes that change nothing but the counters of an instance whose breaker is closed."""


class InstanceActor:
    """Serves one mailbox on one standing until retired, cancelled, or broken."""

    def __init__(
        self,
        standing: Standing,
        mailbox: Mailbox[InstanceRequest, InstanceControl],
        router: RouterAddress,
        clock: WallClock,
        state_log: StateLog,
    ) -> None:
        self.standing = standing
        self.mailbox = mailbox
        self.router = router
        self.clock = clock
        self.state_log = state_log
        self.in_hand: InstanceRequest | InstanceControl | None = None

    @property
    def finished(self) -> bool:
        return self.standing.retired and not self.standing.account.leases

    async def run(self) -> None:
        """Returns once retired and free of leases. Any other end is an exception."""
        mailbox = self.mailbox
        while not self.finished:
            await mailbox.wait_nonempty(self.turn_at_once)
            self.turn()
            if len(mailbox):
                await trio.lowlevel.checkpoint()

    def turn_at_once(self) -> bool:
        """A turn in a sender's task. Whether this actor's own has to go on."""
        self.turn()
        return self.finished or len(self.mailbox) > 0

    def turn(self) -> None:
        """Handles what is waiting, up to a bound. Never blocks."""
        mailbox, now = self.mailbox, trio.current_time()
        changed = False
        for _ in range(min(TURN, len(mailbox))):
            self.in_hand = message = mailbox.receive_nowait()
            self.handle(message, now)
            self.in_hand = None
            changed = changed or not isinstance(message, Acquire)  # a grant frees nothing
        if changed:
            self._announce()

    def handle(self, message: InstanceRequest | InstanceControl, now: float) -> None:
        match message:
            case Acquire():
                self._grant(message, now)
            case Settle():
                self._settle(message, now)
            case Observe(lease_id, evidence):
                self.standing.observe(lease_id, evidence, now)
            case Reconfigure(config, reply):
                self.standing.reconfigure(config)
                self.state_log.notice(now, "its configuration was changed")
                reply.set(None)
            case AmendState(changes, reply):
                self.standing.amend(changes, now, self.clock)
                self.state_log.notice(now, "an operator set its state")
                reply.set(self.standing.state(now, self.clock))
            case Retire():
                self.standing.retired = True
            case _:
                assert_never(message)

    def _grant(self, ask: Acquire, now: float) -> None:
        if not ask.reply.awaited:
            return
        standing = self.standing
        if standing.assess(ask.demand, now) is not None:
            if self.router.mailbox.closed:
                ask.reply.set(Refused("unavailable"))
            else:
                self.router.mailbox.tell(Declined(ask))
            return
        tokens = standing.reserve(ask.lease_id, ask.demand, now)
        if standing.breaker.state != "closed":
            self.state_log.notice(now, "a request is let through")
        config = standing.config
        deployment, sound = config.deployment(ask.demand.model), standing.breaker.sound
        mailbox, met = self.mailbox, ask.met
        ask.reply.set(Grant(ask.lease_id, config, deployment, tokens, mailbox, sound, met))

    def _settle(self, message: Settle, now: float) -> None:
        standing, outcome = self.standing, message.outcome
        proves_nothing = outcome.kind in _UNREMARKABLE and standing.breaker.state == "closed"
        lease_id, _, used_tokens, evidence, complete = message
        standing.settle(lease_id, outcome, used_tokens, now, evidence, complete)
        if not proves_nothing:
            self.state_log.notice(now, outcome.reason or outcome.kind, outcome.request_id)

    def _announce(self) -> None:
        if self.router.waiting:
            self.router.mailbox.tell(CapacityFreed(self.standing.config.name))

    def recover(self, error: Exception) -> None:
        """After a crash: whoever waits for the message in hand gets an error, and what can be done
        without this actor is done: a lease is closed, a configuration or retirement takes effect.

        Called by the supervisor before a new task takes over the same mailbox. Never blocks.
        """
        message, self.in_hand = self.in_hand, None
        standing, now = self.standing, trio.current_time()
        failure = InstanceCrashed(f"instance {standing.config.name}: {type(error).__name__}")
        match message:
            case Acquire(lease_id=lease_id, reply=reply):
                if reply.fail(failure):  # else it was granted before the crash, and holds
                    standing.settle(lease_id, _NEVER_SENT, None, now)
            case Settle():
                self._settle(message, now)
            case Reconfigure(config, reply):
                standing.reconfigure(config)
                reply.set(None)
            case Retire():
                standing.retired = True
            case AmendState(reply=reply):
                reply.fail(failure)
            case Observe() | None:
                pass
            case _:
                assert_never(message)
        self._announce()
