"""What could have been let through: a sender that knows a limiter from inside and never lacks
demand, against a copy of it.

It begins with the trial, sends as soon as there is room, and looks among the next few requests for
one that fits. It respects the limit even where the limiter notices only later that it was exceeded.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.planning.findings import counted_tokens
from proxy.simulator.limiter import Limiter, Refused, Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.planning.arrivals import Ask
    from proxy.planning.findings import Findings
    from proxy.planning.rehearsal import Scenario
    from proxy.planning.resources import ResourceSpec
    from proxy.simulator.limiter import Limits

STEPS_PER_S: Final = 10
"""How often it looks for room: what is free is free for a twentieth of a second on average."""
CHOICE: Final = 20
"""Of so many requests one that fits may go first: enough to fill what is left of a minute."""


class _Call(NamedTuple):
    """One that was let in. `number`: unlike that of any other, so that no tickets are compared."""

    ends_at: float
    number: int
    ticket: Ticket
    ask: Ask


class _Sender:
    """Sends to its own copy of a limiter, which is never wrong about its limit and counts nothing
    that it refuses."""

    def __init__(
        self, limits: Limits, spec: ResourceSpec, asks: Sequence[Ask], began_at: float
    ) -> None:
        limits = replace(limits, counts_refused="none", imprecision=0.0)
        self.limiter = Limiter(limits, origin_s=began_at)
        self._spec = spec
        self._asks = cycle(asks)
        self._next = [next(self._asks) for _ in range(CHOICE)]
        self._calls: list[_Call] = []
        self._sent = 0
        self._counts_at_the_end = limits.charging == "actual"
        self._to_be_counted = 0

    def step(self, now: float) -> None:
        """Ends what has ended, and sends what fits."""
        while self._calls and self._calls[0].ends_at <= now:
            _, _, ticket, ask = heapq.heappop(self._calls)
            self.limiter.settle(now, ticket, ask.input_tokens, ask.tokens - ask.input_tokens)
            if self._counts_at_the_end:
                self._to_be_counted -= ask.tokens
        while self._send_one(now):
            pass

    def _send_one(self, now: float) -> bool:
        room = self.limiter.standing(now).tokens.remaining - self._to_be_counted
        place = next((i for i, ask in enumerate(self._next) if self._load(ask) <= room), None)
        if place is None:
            return False
        ask = self._next[place]
        prompt, allowance = self._prompt(ask), ask.max_tokens or ask.output_tokens
        verdict = self.limiter.admit(now, prompt, allowance)
        if isinstance(verdict, Refused):  # for the requests of this minute, or within it
            return False
        self._next[place] = next(self._asks)
        self._sent += 1
        lasts_s = self._spec.first_token_s + self._spec.per_token_s * ask.output_tokens
        heapq.heappush(self._calls, _Call(now + lasts_s, self._sent, verdict, ask))
        if self._counts_at_the_end:
            self._to_be_counted += ask.tokens
        return True

    def _prompt(self, ask: Ask) -> int:
        return math.ceil(ask.input_tokens * self._spec.prompt_factor)

    def _load(self, ask: Ask) -> int:
        if self._counts_at_the_end:
            return ask.tokens
        return self._prompt(ask) + (ask.max_tokens or ask.output_tokens)


def possible(scenario: Scenario, seed: int, findings: Findings) -> list[list[int]]:
    """For each instance of `findings`, and each of its seconds: the tokens that its limiter would
    have counted by then. Cost: about a second for ten minutes."""
    asks = list(scenario.traffic.asks(seed))
    specs = scenario.traffic.spec.resources
    began_at = findings.began_at
    each = []
    for name, (limiter,) in zip(findings.names, findings.limiters, strict=True):
        sender = _Sender(limiter.limits, specs.of(name), asks, began_at)
        counts = []
        for step in range(STEPS_PER_S * (len(findings.seconds) - 1) + 1):
            if not step % STEPS_PER_S:
                counts.append(counted_tokens(sender.limiter))
            sender.step(began_at + step / STEPS_PER_S)
        each.append(counts)
    return each
