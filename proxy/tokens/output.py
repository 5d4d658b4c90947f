"""How much output a request may produce, how much its model usually produces, and how good the
estimates of its input were.

Pure and bounded: no clock, no I/O, at most `MAX_MODELS` models remembered.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.tokens.prompt import EstimateKind

T = TypeVar("T")

MAX_MODELS = 1000

DEFAULT_OUTPUT_TOKENS = 256
"""What is reserved for a model of which nothing is known yet: a chat answer of some 200 words.
Azure itself seems to charge 16 (the Azure OpenAI API simulator), which would let a burst of first
requests overrun a limit that counts what is used; a few hundred too many merely delay a few
requests of the first minute, for every settlement corrects them."""

_LIMIT_FIELDS: dict[EstimateKind, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
}

_WITHOUT_OUTPUT: frozenset[EstimateKind] = frozenset({"embeddings", "moderations"})

_RING = 256
_RECOMPUTE_EVERY = 16
_QUANTILE = 0.9


def output_limit(kind: EstimateKind, body: Mapping[str, Any]) -> int | None:
    """The most output tokens that the request allows for each answer.

    0 for operations that produce no tokens; None when the request sets no limit. A limit that is
    no number of tokens counts as absent: the upstream judges it.
    """
    if kind in _WITHOUT_OUTPUT:
        return 0
    for field in _LIMIT_FIELDS.get(kind, ()):
        limit = body.get(field)
        if type(limit) is int and limit >= 0:
            return limit
    return None


def choices(kind: EstimateKind, body: Mapping[str, Any]) -> int:
    """How many answers come back: `n`, and that for each prompt."""
    return _number(body, "n") * _prompts(kind, body)


def generated(kind: EstimateKind, body: Mapping[str, Any]) -> int:
    """How many answers are made: the larger of `n` and `best_of`, and that for each prompt."""
    return max(_number(body, "n"), _number(body, "best_of")) * _prompts(kind, body)


def _number(body: Mapping[str, Any], field: str) -> int:
    value = body.get(field)
    return value if type(value) is int and value > 1 else 1


def _prompts(kind: EstimateKind, body: Mapping[str, Any]) -> int:
    prompt = body.get("prompt") if kind == "completions" else None
    if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], int):
        return 1  # a list of numbers is one prompt, in tokens
    return len(prompt)


class _Outputs:
    """The last outputs of one model."""

    __slots__ = ("_next", "_ring", "expected_tokens")

    def __init__(self) -> None:
        self._ring: list[int] = []
        self._next = 0
        self.expected_tokens = DEFAULT_OUTPUT_TOKENS

    def add(self, output_tokens: int) -> None:
        if len(self._ring) < _RING:
            self._ring.append(output_tokens)
        else:
            self._ring[self._next % _RING] = output_tokens
        self._next += 1
        if self._next < _RECOMPUTE_EVERY or self._next % _RECOMPUTE_EVERY == 0:
            ranked = sorted(self._ring)
            self.expected_tokens = max(1, ranked[math.ceil(_QUANTILE * len(ranked)) - 1])


class Allowance:
    """What to reserve for each answer to a request that sets no limit, per model.

    The 90th percentile of the last 256 outputs, brought up to date every 16 outputs (and with
    each of the first ones): most reservations are then enough, and what they are too large by
    comes back when they settle.
    """

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: OrderedDict[str, _Outputs] = OrderedDict()

    def observe(self, model: str, output_tokens: int) -> None:
        """Takes note of one answer. Cost: O(1) amortised. Negative counts are ignored."""
        if output_tokens >= 0:
            _recent(self._models, model, _Outputs).add(output_tokens)

    def expected(self, model: str) -> int:
        """Tokens to reserve; never zero. Cost: O(1)."""
        outputs = self._models.get(model)
        return DEFAULT_OUTPUT_TOKENS if outputs is None else outputs.expected_tokens


@dataclass(frozen=True, slots=True)
class EstimateAccuracy:
    """Input tokens of one model's requests: as estimated, and as the upstream reported them.

    Ratios are actual / estimated: above 1, the estimate was too low.
    """

    requests: int
    estimated_tokens: int
    actual_tokens: int
    mean_ratio: float
    lowest_ratio: float
    highest_ratio: float


class _Sums:
    __slots__ = ("actual", "estimated", "highest", "lowest", "ratios", "requests")

    def __init__(self) -> None:
        self.requests = self.estimated = self.actual = 0
        self.ratios = self.highest = 0.0
        self.lowest = math.inf

    def add(self, estimated: int, actual: int) -> None:
        ratio = actual / estimated
        self.requests += 1
        self.estimated += estimated
        self.actual += actual
        self.ratios += ratio
        self.lowest = min(self.lowest, ratio)
        self.highest = max(self.highest, ratio)


class EstimateRecord:
    """How the estimates of input tokens compare with what was reported, per model."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: OrderedDict[str, _Sums] = OrderedDict()

    def observe(self, model: str, estimated: int, actual: int) -> None:
        """Takes note of one request. Cost: O(1). Without two positive numbers there is no ratio,
        and nothing is noted."""
        if estimated > 0 and actual > 0:
            _recent(self._models, model, _Sums).add(estimated, actual)

    def snapshot(self) -> dict[str, EstimateAccuracy]:
        """By model, the one heard of last at the end."""
        return {
            model: EstimateAccuracy(
                requests=sums.requests,
                estimated_tokens=sums.estimated,
                actual_tokens=sums.actual,
                mean_ratio=sums.ratios / sums.requests,
                lowest_ratio=sums.lowest,
                highest_ratio=sums.highest,
            )
            for model, sums in self._models.items()
        }


def _recent(models: OrderedDict[str, T], model: str, new: type[T]) -> T:
    """The entry of `model`, made if need be; the one not heard of for longest makes room."""
    entry = models.get(model)
    if entry is None:
        entry = models[model] = new()
        if len(models) > MAX_MODELS:
            models.popitem(last=False)
    else:
        models.move_to_end(model)
    return entry
