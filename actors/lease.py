"""The requester's side of a lease: ask, use, settle exactly once.

The requester names the lease before anybody has granted it, and owes its settlement from the
moment it tries to ask. So there is no instant at which a cancellation could lose a reservation:
before the answer the ask is abandoned and whoever holds it drops it; after it, `settle` is
synchronous. (An ask-then-settle without this rule lost two reservations in three under random
cancellation; `tests/actors/test_lease.py` keeps it at none.)
"""

from __future__ import annotations

from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from actors.mailbox import MailboxClosed, Reply
from actors.messages import (
    Acquire,
    Answer,
    CountFirst,
    Demand,
    Explain,
    Explanation,
    Grant,
    LeaseId,
    Observe,
    Outcome,
    Refused,
    Settle,
    Withdraw,
)

if TYPE_CHECKING:
    from types import TracebackType

    from actors.messages import Evidence, Met
    from actors.models import InstanceConfig
    from actors.router import RouterAddress

CANCELLED_BEFORE_SENDING: Final = Outcome("cancelled", reached=False)
ALONE_S: Final = 0.001
"""Who asks so long after everybody else is answered at once, without a switch of tasks. Those who
ask together are better served together: each step for all of them finds the caches warm, and that
saves more than the switches cost."""
OVERLOADED_RETRY_S: Final = 1.0
"""A full router mailbox means thousands of undecided requests; they take less than a second."""


class Lease:
    """A granted reservation. Leaving its `with` block settles it if nothing else has."""

    __slots__ = ("_grant", "_settled", "config")

    config: InstanceConfig
    """The instance's configuration as it was when the lease was granted."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._settled = False
        self.config = grant.config

    @property
    def deployment(self) -> str:
        return self._grant.deployment

    @property
    def sound(self) -> bool:
        """Whether nothing spoke against the instance when the lease was granted."""
        return self._grant.sound

    @property
    def met(self) -> Met:
        """What kept instances from taking the request, before this one did. See `Acquire`."""
        return self._grant.met

    @property
    def tokens(self) -> int:
        """What is reserved, input and output."""
        return self._grant.tokens

    def observe(self, evidence: Evidence) -> None:
        """Passes on what the head of an answer said, while the answer goes on. Never blocks."""
        self._grant.instance.tell(Observe(self._grant.lease_id, evidence))

    def settle(
        self,
        outcome: Outcome,
        used_tokens: int | None = None,
        evidence: Evidence | None = None,
        *,
        complete: bool = True,
    ) -> None:
        """Ends the lease; only the first call counts. The arguments: see `Settle`. Never blocks."""
        if not self._settled:
            self._settled = True
            settle = Settle(self._grant.lease_id, outcome, used_tokens, evidence, complete)
            self._grant.instance.tell(settle)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Whoever leaves without having said what was used was interrupted where nothing is known
        # of it, so the reservation stands.
        self.settle(Outcome("cancelled"))


class Leases:
    """Asks the router on behalf of requests."""

    def __init__(self, router: RouterAddress) -> None:
        self._router = router
        self._ids = count(1)
        self._asked_at = -inf

    async def acquire(
        self,
        demand: Demand,
        wait_until: float,
        excluded: frozenset[str] = frozenset(),
        affinity: int | None = None,
        priority: int = 100,
        avoided: frozenset[str] = frozenset(),
        *,
        again: bool = False,
        only: frozenset[str] | None = None,
    ) -> Lease | Refused | CountFirst:
        """Waits for a lease, at the most until `wait_until` (trio time).

        Errors: `InstanceCrashed` when the instance failed with the ask in hand; ask again.
        Cancellation at any moment leaves nothing reserved.
        """
        reply: Reply[Answer] = Reply()
        ask = Acquire(
            LeaseId(next(self._ids)),
            demand,
            wait_until,
            reply,
            excluded,
            affinity,
            priority,
            avoided,
            again,
            only,
        )
        now = trio.current_time()
        alone, self._asked_at = now - self._asked_at > ALONE_S, now
        try:
            self._router.mailbox.offer(ask, at_once=alone)
        except trio.WouldBlock:
            return Refused("overloaded", now + OVERLOADED_RETRY_S)
        except MailboxClosed:
            return Refused("unavailable")
        try:
            answer = await reply.wait()
        except BaseException:
            self._abandon(ask)
            raise
        return Lease(answer) if isinstance(answer, Grant) else answer

    async def explain(self, ask: Acquire) -> Explanation:
        """What would become of `ask`, if it were sent; nothing is reserved.

        Errors: `trio.WouldBlock` when the router is too busy, `MailboxClosed`.
        """
        reply: Reply[Explanation] = Reply()
        self._router.mailbox.offer(Explain(ask, reply))
        return await reply.wait()

    def _abandon(self, ask: Acquire) -> None:
        ask.reply.abandon()
        granted = ask.reply.value()
        if isinstance(granted, Grant):
            granted.instance.tell(Settle(ask.lease_id, CANCELLED_BEFORE_SENDING))
        else:
            self._router.mailbox.tell(Withdraw(ask.lease_id))
