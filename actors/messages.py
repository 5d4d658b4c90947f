"""Every message between tasks, and who sends it to whom.

| message         | sender     | receiver   | lane    | answer                         |
|-----------------|------------|------------|---------|--------------------------------|
| Acquire         | requester  | router     | request | Grant, Refused or CountFirst   |
| Acquire         | router     | instance   | request | the same slot, passed on       |
| Declined        | instance   | router     | control | none                           |
| CapacityFreed   | instance   | router     | control | none                           |
| RosterChanged   | supervisor | router     | control | none                           |
| Explain         | front end  | router     | request | Explanation                    |
| Withdraw        | requester  | router     | control | none                           |
| Observe         | requester  | instance   | control | none                           |
| Settle          | requester  | instance   | control | none                           |
| Reconfigure     | supervisor | instance   | control | None                           |
| AmendState      | supervisor | instance   | control | InstanceState                  |
| Retire          | supervisor | instance   | control | none                           |
| see `actors.admin_messages`  | supervisor | request | see the classes                |

Messages are frozen: dataclasses, and named tuples for those of every request, which cost a third.
The only thing in them that changes is the reply slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NewType, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.mailbox import Mailbox, Reply
    from actors.models import InstanceConfig, InstanceState
    from actors.policy.headroom import Headroom, Obstacle

LeaseId = NewType("LeaseId", int)
"""Unique in the process; named by the requester before anybody has granted anything."""

NO_MODEL: Final = ""
"""The model of a demand that needs none, and no tokens: every enabled instance may take it."""


Met: TypeAlias = "Mapping[str, Obstacle]"
NOTHING: Final[Met] = MappingProxyType({})

Rank: TypeAlias = "tuple[int, bool]"
"""Of those who wait; lower is earlier. See `Acquire.rank`."""


class Demand(NamedTuple):
    """What one request needs, in tokens.

    `input_low <= input_likely <= input_high`; all equal once counted exactly. `output` is the
    allowance reserved for the answer.
    """

    model: str
    input_low: int
    input_likely: int
    input_high: int
    output: int

    @property
    def exact(self) -> bool:
        return self.input_low == self.input_high


class Grant(NamedTuple):
    """A lease: `tokens` are reserved on this instance until a `Settle` names `lease_id`.

    `config` is the instance's configuration at the moment of the grant and stays good for the
    life of the lease, whatever is changed meanwhile. `sound`: nothing spoke against the instance
    then, as `Breaker.sound` says. `met`: see `Acquire`.
    """

    lease_id: LeaseId
    config: InstanceConfig
    deployment: str
    tokens: int
    instance: Mailbox[InstanceRequest, InstanceControl]
    sound: bool
    met: Met = NOTHING


RefusalReason: TypeAlias = Literal[
    "unknown_model", "input_too_long", "too_large", "saturated", "unavailable", "overloaded"
]


@dataclass(frozen=True, slots=True)
class Refused:
    """No instance can take it in time.

    `retry_at`: trio time at which it could be admitted as far as is known now; None when waiting
    does not help. `limit`: the largest input (`input_too_long`) or reservation (`too_large`) that
    some instance accepts. `met`: see `Acquire`; it makes no difference to two refusals.
    """

    reason: RefusalReason
    retry_at: float | None = None
    limit: int | None = None
    met: Met = field(default_factory=lambda: NOTHING, compare=False)


@dataclass(frozen=True, slots=True)
class CountFirst:
    """The bounds of the demand straddle a limit: count the input exactly and ask again."""


Answer: TypeAlias = Grant | Refused | CountFirst


class Acquire(NamedTuple):
    """Asks for a lease. `wait_until`: trio time until which it may wait for capacity.

    `excluded`: instances that this request has already failed on. `avoided`: those that it has
    met a limit of, which get it only if no other can take it now. `affinity`: 64 bits that it
    shares with requests that should meet the same instance if there is room. `priority`: its
    place among those that wait; lower is earlier. `again`: it was refused before and comes back
    when it was told to; the requester claims it, the router checks it. `only`: the instances that
    hold what it speaks of, so that no other will do; None: any. `met`: what the router has found
    to keep instances from taking it, by their names, the first to be asked first.
    """

    lease_id: LeaseId
    demand: Demand
    wait_until: float
    reply: Reply[Answer]
    excluded: frozenset[str] = frozenset()
    affinity: int | None = None
    priority: int = 100
    avoided: frozenset[str] = frozenset()
    again: bool = False
    only: frozenset[str] | None = None
    met: Met = NOTHING

    @property
    def rank(self) -> Rank:
        """Who comes before whom, whatever their age: those who were told to come back first."""
        return self.priority, not self.again


@dataclass(frozen=True, slots=True)
class Declined:
    """An instance could not admit `ask` after all; the router looks again."""

    ask: Acquire


@dataclass(frozen=True, slots=True)
class CapacityFreed:
    """This instance has changed other than by a grant, and somebody waits: look at it again."""

    instance: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The requester of this lease has gone: drop its place in the waiting line."""

    lease_id: LeaseId


class Judgement(NamedTuple):
    """What the router thinks of one instance for one demand.

    `obstacle`: an `ObstacleReason`, `model_not_served` or `bound_elsewhere`; None: it can take it
    now. `until`: trio time. `order`: its place in the strategy's order this time, None if it is no
    candidate.
    """

    name: str
    obstacle: str | None
    until: float | None
    limit: int | None
    order: int | None
    priority: int
    weight: int
    utilization: float


class Explanation(NamedTuple):
    """`answer`: what an ask would get now: the name of an instance, `wait`, `count_first` or a
    `RefusalReason`. `retry_at`: trio time at which that could change, as far as is known.
    `waiting`: how many requests wait for capacity."""

    answer: str
    retry_at: float | None
    judgements: tuple[Judgement, ...]
    waiting: int


@dataclass(frozen=True, slots=True)
class Explain:
    """What would become of `ask`, if it were sent? Nothing is reserved, sent or remembered, and
    its own reply stays empty."""

    ask: Acquire
    reply: Reply[Explanation]


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """Where an instance is reached and what may be read of it without asking.

    `headroom` is a read-only view of the instance's own accounts; only the instance writes them.
    """

    config: InstanceConfig
    mailbox: Mailbox[InstanceRequest, InstanceControl]
    headroom: Headroom


@dataclass(frozen=True, slots=True)
class RosterChanged:
    """The instances that exist from now on."""

    instances: tuple[InstanceRef, ...]


OutcomeKind: TypeAlias = Literal[
    "success",  # the upstream did its work
    "client_error",  # the request itself was wrong: nobody's fault here
    "rate_limited",  # a limit of this model on this instance was hit
    "instance_error",  # the instance failed: connection, 408, 5xx, timeout
    "credential_error",  # 401, 403: nothing will work until an operator acts
    "model_error",  # this instance does not have this model
    "unsupported",  # this instance does not have this operation
    "cancelled",  # the client went away: nobody's fault
]


class Outcome(NamedTuple):
    """What came of a lease, as `proxy.exchange.classify` judged it.

    `reason` is shown to operators (`last_error`); it never holds a key or content. `bench_s`:
    seconds for which the upstream asked to be left alone. `reached`: whether the upstream can
    have counted the request, None when that is unknown. `latency_s`: from sending to the last
    byte. `limit`: which limit refused it, if that was said. `request_id`: whose outcome it is, for
    the log. `aside`: the answer to a call without tokens, which speaks neither for nor against
    inference there.
    """

    kind: OutcomeKind
    status: int | None = None
    reason: str = ""
    bench_s: float | None = None
    reached: bool | None = None
    latency_s: float | None = None
    limit: Literal["tokens", "requests"] | None = None
    request_id: str | None = None
    aside: bool = False


class Evidence(NamedTuple):
    """What an answer said of its upstream's limits per minute; None where it said nothing.

    Limits are positive. `remaining_*`: right after the request arrived there.
    """

    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    limit_requests: int | None = None
    remaining_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Observe:
    """The head of a lease's answer has come, and said this. Ignored for an unknown id."""

    lease_id: LeaseId
    evidence: Evidence


class Settle(NamedTuple):
    """Ends a lease. Idempotent: an id that is unknown or already settled is ignored.

    `used_tokens`: what was really used (input and output), None when unknown: then the
    reservation stands for a request that reached the upstream. `complete`: whether that is all of
    it; if not, the upstream may have counted more, up to the reservation.
    """

    lease_id: LeaseId
    outcome: Outcome
    used_tokens: int | None = None
    evidence: Evidence | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Answered once every further decision follows `config`."""

    config: InstanceConfig
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class AmendState:
    """An operator's correction. `changes` holds validated `InstanceState` fields by name."""

    changes: Mapping[str, Any]
    reply: Reply[InstanceState]


@dataclass(frozen=True, slots=True)
class Retire:
    """Grant nothing more; the task ends when the last lease is settled."""


InstanceRequest: TypeAlias = Acquire
InstanceControl: TypeAlias = Observe | Settle | Reconfigure | AmendState | Retire
RouterRequest: TypeAlias = Acquire | Explain
RouterControl: TypeAlias = Declined | CapacityFreed | RosterChanged | Withdraw
