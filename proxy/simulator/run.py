"""An inference call on its way: what it asks for, and what it was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from proxy.simulator.call import JSON, Event, Piece

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

    from proxy.simulator.deployment import Deployment, Latency
    from proxy.simulator.fields import Body
    from proxy.simulator.limiter import Limiter, Ticket
    from proxy.simulator.surface import Address

Finish: TypeAlias = Literal["stop", "length", "content_filter"]


@dataclass(slots=True)
class Ask:
    """What a call asks for, as its operation read it.

    `text`: all of the input that is text; `other_tokens`: what the rest of the input counts.
    `limit`: the most tokens of an answer, None without a limit; `generates`: whether there is an
    answer to count at all. `samples`: answers generated; `choices`: answers given back.
    """

    body: Body
    text: str
    other_tokens: int
    param: str
    limit: int | None = None
    generates: bool = True
    samples: int = 1
    choices: int = 1
    stream: bool = False
    include_usage: bool = False
    background: bool = False


@dataclass(slots=True)
class Run:
    """A call that was let in.

    `created`: epoch seconds. `answer_tokens`: of each answer. `takes_s`: to generate it.
    `failed`: the service has failed it, so nothing of it is billed.
    """

    id: str
    now: float
    created: int
    deployment: Deployment
    address: Address
    input_tokens: int
    cached_tokens: int
    answer_tokens: int
    finish: Finish
    takes_s: float
    limiter: Limiter
    ticket: Ticket
    failed: bool = False

    def ended(self, now: float, tokens: int) -> None:
        """Settles with the limiter, once: `tokens` were generated. Never blocks."""
        if self.failed:
            self.limiter.settle(now, self.ticket, 0, 0)
        else:
            self.limiter.settle(now, self.ticket, self.input_tokens, tokens, self.cached_tokens)


class Whole(NamedTuple):
    """A body that is given all at once."""

    body: bytes
    content_type: tuple[bytes, bytes] = JSON


class Operation(NamedTuple):
    """One inference operation.

    `title` and `verb`: what the service calls it in a 429 and in `OperationNotSupported`.
    `read` raises `ApiError` for a request that is wrong in itself.
    """

    title: str
    verb: str
    read: Callable[[Body, Address, Deployment], Ask]
    whole: Callable[[Ask, Run], Whole]
    events: Callable[[Ask, Run], Iterator[Event]] | None = None


class Request(NamedTuple):
    """A request for inference, as it arrived at `now`."""

    operation: Operation
    address: Address
    body: Body
    now: float


def pace(events: Iterable[Event], latency: Latency, rng: random.Random) -> Iterator[Piece]:
    """Gives each event its time: the first token after `first_token_s`, the rest at its rate."""
    begun = False
    for event in events:
        after_s = 0.0
        if event.steps:
            after_s = latency.generation_s(event.steps, rng)
            if not begun:
                begun = True
                after_s += latency.first_token_s
        yield Piece(after_s, event.body, event.tokens)
