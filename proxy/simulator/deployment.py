"""What a simulated deployment is: model, limits, latency, and the ways in which it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from proxy.simulator.limiter import Limits

if TYPE_CHECKING:
    import random

HeaderMode: TypeAlias = Literal["full", "remaining", "none", "unknown"]
"""The rate-limit headers of every answer: limit and remaining; remaining only; none; -1."""

HintMode: TypeAlias = Literal["ms", "s", "date", "reset", "odd", "body", "none", "day"]
"""How a 429 says when to come back: `retry-after-ms` and `retry-after`; `retry-after` in seconds;
as a date; only `x-ratelimit-reset-*`; only the oddly spelt `x-rate-limit-reset-tokens`; only in
the message; not at all; 86400 seconds, whatever the truth."""

RefusalStyle: TypeAlias = Literal["classic", "gateway", "capacity", "provisioned", "stream"]
"""The body of a 429: code "429"; "RateLimitReached"; "no_capacity"; a provisioned deployment's;
or, for a streamed call, HTTP 200 and an error event after the first events."""

_TEXT = frozenset({"chat/completions", "completions", "responses"})
_FAMILIES: tuple[tuple[str, frozenset[str]], ...] = (
    ("text-embedding", frozenset({"embeddings"})),
    ("whisper", frozenset({"audio/transcriptions", "audio/translations"})),
    ("gpt-4o-transcribe", frozenset({"audio/transcriptions"})),
    ("gpt-4o-mini-transcribe", frozenset({"audio/transcriptions"})),
    ("tts", frozenset({"audio/speech"})),
    ("gpt-4o-mini-tts", frozenset({"audio/speech"})),
    ("dall-e", frozenset({"images/generations", "images/edits"})),
    ("gpt-image", frozenset({"images/generations", "images/edits"})),
    ("omni-moderation", frozenset({"moderations"})),
    ("text-moderation", frozenset({"moderations"})),
)
_REASONING = ("o1", "o3", "o4", "gpt-5")


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """How long a deployment takes. Jitter is the standard deviation of one token's time."""

    first_token_s: float = 0.3
    per_token_s: float = 0.019
    jitter_s: float = 0.006

    def generation_s(self, tokens: int, rng: random.Random) -> float:
        """Time to generate `tokens` in a row, after the first."""
        if not self.jitter_s:
            return tokens * self.per_token_s
        spread = self.jitter_s * float(tokens) ** 0.5
        return max(0.0, rng.gauss(tokens * self.per_token_s, spread))


INSTANT = Latency(first_token_s=0.0, per_token_s=0.0, jitter_s=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """One deployment of a model.

    `assumed_output_tokens`: what the limiter assumes for a call without an output limit.
    `answer_tokens`: the shortest and the longest answer that the model gives of its own accord.
    `prompt_factor`: the limiter's estimate of a prompt, relative to a quarter of its characters.
    `chunk_tokens`: tokens per streamed event. `preamble_events`: how many of the first events
    come before the error of the refusal style "stream". `spillover`: a standard deployment that
    takes what this one can't.
    """

    name: str
    model: str
    kind: Literal["standard", "provisioned"] = "standard"
    limits: Limits = field(default_factory=Limits)
    latency: Latency = field(default_factory=Latency)
    context_tokens: int = 128_000
    assumed_output_tokens: int = 16
    answer_tokens: tuple[int, int] = (20, 120)
    prompt_factor: float = 1.0
    chunk_tokens: int = 1
    headers: HeaderMode = "full"
    hint: HintMode = "ms"
    refusal: RefusalStyle = "gateway"
    preamble_events: int = 2
    spillover: str | None = None

    @property
    def operations(self) -> frozenset[str]:
        """The operations that its model takes."""
        return _operations_of(self.model)

    @property
    def reasons(self) -> bool:
        """Whether it is a reasoning model, which knows no `max_tokens`."""
        return self.model.startswith(_REASONING)


@lru_cache(maxsize=256)
def _operations_of(model: str) -> frozenset[str]:
    """By family. Chat models take the older completions too: more lenient than the service."""
    for prefix, operations in _FAMILIES:
        if model.startswith(prefix):
            return operations
    return _TEXT


def provisioned_limits(tpm: int, output_weight: int = 4) -> Limits:
    """Limits as those of a provisioned deployment.

    Utilisation drains evenly, is charged with an estimate that is corrected when the call ends,
    and any call is let in below 100 %.
    """
    return Limits(
        tpm=tpm,
        rpm=0,
        window="bucket",
        charging="corrected",
        admission="below",
        counts_refused="none",
        output_weight=output_weight,
        cached_is_free=True,
    )
