"""Inference on the deployments of one resource: limits, content filter, lengths, spillover."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from proxy.simulator import catalogue
from proxy.simulator.call import EVENT_STREAM, Answer, ApiError, Piece
from proxy.simulator.faults import distort, instead
from proxy.simulator.limiter import Limiter, Refused, Ticket
from proxy.simulator.prompt_cache import PromptCache
from proxy.simulator.refusals import FailureShape, add_limit_headers, failure_events, refusal
from proxy.simulator.run import Ask, Finish, Operation, Request, Run, pace
from proxy.simulator.text import quarter_count

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from actors.clock import WallClock
    from proxy.simulator.deployment import Deployment
    from proxy.simulator.faults import Fault
    from proxy.simulator.surface import Address

BLOCKED_PROMPT = "simulate-blocked-prompt"
BLOCKED_ANSWER = "simulate-blocked-answer"
OUTPUT_TOKENS_FIELD = "simulated_output_tokens"
"""In the `metadata` of a request: how long an answer the model would give of its own accord."""

_NO_CACHE = (b"cache-control", b"no-cache, must-revalidate")
_UNBUFFERED = (b"x-accel-buffering", b"no")
_SPILLS = frozenset({400, 429, 500, 503})
"""Of the 400s the service names only prompts that are too long; any other fails the second time
just the same, and then the first answer stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How a resource reads prompts.

    `count`: tokens of a text, for what is billed; limits take a quarter of the characters.
    `blocked_prompts`, `blocked_answers`: words in a prompt that make the content filter refuse
    it, or cut the answer short.
    """

    count: Callable[[str], int] = quarter_count
    blocked_prompts: tuple[str, ...] = (BLOCKED_PROMPT,)
    blocked_answers: tuple[str, ...] = (BLOCKED_ANSWER,)


class Inference:
    """The deployments at work. Everything is decided when the call arrives; nothing blocks."""

    def __init__(
        self,
        deployments: dict[str, Deployment],
        *,
        region: str,
        reading: Reading,
        rng: random.Random,
        wall: WallClock,
        origin_s: float,
    ) -> None:
        """`origin_s`: the moment from which the schedules in the limits count."""
        self.limiters = {
            name: Limiter(deployment.limits, origin_s=origin_s, rng=rng)
            for name, deployment in deployments.items()
        }
        self.wall = wall
        self._deployments = deployments
        self._region = region
        self._reading = reading
        self._rng = rng
        self._cache = PromptCache()

    def answer(self, request: Request, name: str, spill_to: str, fault: Fault | None) -> Answer:
        """The answer to one request; what a provisioned deployment can't take may spill over.

        `spill_to`: the deployment that the caller wants it to spill to, "" for what is configured.
        `fault`: what the call meets at `name`. Errors: `ApiError` 404 for an unknown `name`.
        """
        deployment = self._deployments.get(name)
        if deployment is None:
            raise unknown_model(name, request.address)
        answer = self._serve(request, deployment, fault)
        other = self._deployments.get(spill_to or deployment.spillover or "")
        if deployment.kind != "provisioned" or other is None or answer.status not in _SPILLS:
            return answer
        second = self._serve(request, other, None)
        if second.status != 200:
            answer.headers.append((b"x-ms-spillover-error", b"%d" % second.status))
            return answer
        second.headers.append((b"x-ms-spillover-from-deployment", name.encode()))
        return second

    def _serve(self, request: Request, deployment: Deployment, fault: Fault | None) -> Answer:
        address, operation = request.address, request.operation
        try:
            if fault is not None and (replaced := instead(fault)) is not None:
                return replaced
            if address.path not in deployment.operations:
                raise catalogue.operation_not_supported(operation.verb, deployment.model)
            ask = operation.read(request.body, address, deployment)
            answer = self._generate(request, ask, deployment)
            if fault is not None:
                answer = distort(answer, fault)
        except ApiError as error:
            answer = error.answer()
        standing = self.limiters[deployment.name].standing(request.now)
        add_limit_headers(answer.headers, deployment, standing, plain=not address.azure)
        if address.azure:
            answer.headers.append((b"x-ms-deployment-name", deployment.name.encode()))
        return answer

    def _generate(self, request: Request, ask: Ask, deployment: Deployment) -> Answer:
        operation, now = request.operation, request.now
        input_tokens = self._reading.count(ask.text) + ask.other_tokens
        cache_key = str(ask.body.get("prompt_cache_key"))
        cached = min(input_tokens, self._cache.cached_tokens(now, cache_key, ask.text))
        verdict = self._admit(ask, deployment, cached, now)
        ticket = verdict if isinstance(verdict, Ticket) else Ticket(None)
        tokens, finish = self._answer_length(ask, deployment, input_tokens)
        latency = deployment.latency
        run = Run(
            id=new_id(self._rng),
            now=now,
            created=int(self.wall.epoch(now)),
            deployment=deployment,
            address=request.address,
            input_tokens=input_tokens,
            cached_tokens=cached,
            answer_tokens=tokens,
            finish=finish,
            takes_s=latency.first_token_s + latency.generation_s(tokens, self._rng),
            limiter=self.limiters[deployment.name],
            ticket=ticket,
        )
        if isinstance(verdict, Refused):
            return self._refuse(operation, ask, run, verdict)
        self._check_prompt(ask, run)
        self._cache.remember(now, cache_key, ask.text)
        return self._begin(operation, ask, run)

    def _begin(self, operation: Operation, ask: Ask, run: Run) -> Answer:
        if ask.stream and operation.events is not None:
            pieces = pace(operation.events(ask, run), run.deployment.latency, self._rng)
            return Answer(200, [EVENT_STREAM, _NO_CACHE, _UNBUFFERED], pieces, run=run)
        whole = operation.whole(ask, run)
        after_s = 0.0 if ask.background else run.takes_s
        tokens = run.answer_tokens * ask.samples
        return Answer(200, [whole.content_type], whole.body, after_s, tokens=tokens, run=run)

    def _admit(self, ask: Ask, deployment: Deployment, cached: int, now: float) -> Ticket | Refused:
        """The limiter's verdict, by its own estimate of the prompt."""
        estimate = math.ceil(len(ask.text) / 4 * deployment.prompt_factor) + ask.other_tokens
        allowance = 0
        if ask.generates:
            allowance = (ask.limit or deployment.assumed_output_tokens) * ask.samples
        return self.limiters[deployment.name].admit(now, estimate, allowance, cached)

    def _answer_length(
        self, ask: Ask, deployment: Deployment, input_tokens: int
    ) -> tuple[int, Finish]:
        """Tokens of one answer and why it ends there."""
        if not ask.generates:
            return 0, "stop"
        metadata = ask.body.get("metadata")
        asked = metadata.get(OUTPUT_TOKENS_FIELD) if type(metadata) is dict else None
        if type(asked) is str and asked.isascii() and asked.isdigit():
            natural = int(asked[:9])
        else:
            natural = self._rng.randint(*deployment.answer_tokens)
        finish: Finish = "stop"
        if any(word in ask.text for word in self._reading.blocked_answers):
            natural, finish = natural // 2, "content_filter"
        most = deployment.context_tokens - input_tokens
        if ask.limit is not None:
            most = min(most, ask.limit)
        if natural > most:
            natural, finish = most, "length"
        return max(1, natural), finish

    def _check_prompt(self, ask: Ask, run: Run) -> None:
        """What is found wrong only after the limiter has counted the call. Errors: `ApiError`."""
        needed, most = run.input_tokens + (ask.limit or 0), run.deployment.context_tokens
        if any(word in ask.text for word in self._reading.blocked_prompts):
            error = catalogue.prompt_blocked()
        elif needed > most:
            error = catalogue.context_length_exceeded(most, needed, ask.param)
        else:
            return
        run.limiter.settle(run.now, run.ticket, 0, 0)
        raise error

    def _refuse(self, operation: Operation, ask: Ask, run: Run, refused: Refused) -> Answer:
        deployment = run.deployment
        epoch = self.wall.epoch(run.now)
        error = refusal(deployment, run.address, operation.title, self._region, refused, epoch)
        if deployment.refusal != "stream" or not ask.stream or operation.events is None:
            raise error
        preamble = islice(operation.events(ask, run), deployment.preamble_events)
        shape: FailureShape = "both" if run.address.path == "responses" else "error"
        message, number = error.error["message"], deployment.preamble_events
        failure = failure_events(shape, "too_many_requests", "rate_limit_exceeded", message, number)
        pieces = chain((Piece(0.0, event.body) for event in preamble), [Piece(0.0, failure)])
        return Answer(200, [EVENT_STREAM, _NO_CACHE, *error.headers], pieces)


def new_id(rng: random.Random) -> str:
    """128 random bits in hexadecimal."""
    return f"{rng.getrandbits(128):032x}"


def unknown_model(name: str, address: Address) -> ApiError:
    """The 404 for a deployment or model that the resource does not have."""
    if address.azure:
        return catalogue.deployment_not_found()
    return catalogue.model_not_found_plain(name)
