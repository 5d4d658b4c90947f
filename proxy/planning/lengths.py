"""How long prompts and answers are: distributions of token counts, as a traffic spec names them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

if TYPE_CHECKING:
    import random

MOST_TOKENS: Final = 1_000_000
"""No context window is larger."""
_P95: Final = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""

Count: TypeAlias = Annotated[int, Field(ge=1, le=MOST_TOKENS)]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Constant(_Fields):
    """Always `tokens`."""

    kind: Literal["constant"]
    tokens: Count

    def draw(self, rng: random.Random) -> int:
        del rng
        return self.tokens

    def mean(self) -> float:
        return self.tokens


class Uniform(_Fields):
    """Any number from `least` to `most`, all alike."""

    kind: Literal["uniform"]
    least: Count
    most: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) must not exceed most ({self.most}); swap them")
        return self

    def draw(self, rng: random.Random) -> int:
        return rng.randint(self.least, self.most)

    def mean(self) -> float:
        return (self.least + self.most) / 2


class Lognormal(_Fields):
    """Half are below `median`, one in twenty above `p95`, none above `most`: what prompts and
    answers look like where nobody limits them."""

    kind: Literal["lognormal"]
    median: Count
    p95: Count
    most: Count = MOST_TOKENS

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.median <= self.p95 <= self.most:
            raise ValueError(
                f"median ({self.median}), p95 ({self.p95}) and most ({self.most}) must be in "
                "ascending order; raise the one that is too small"
            )
        return self

    @property
    def _sigma(self) -> float:
        return math.log(self.p95 / self.median) / _P95

    def draw(self, rng: random.Random) -> int:
        drawn = rng.lognormvariate(math.log(self.median), self._sigma)
        return max(1, min(self.most, round(drawn)))

    def mean(self) -> float:
        """Without regard to `most`, which seldom matters."""
        return self.median * math.exp(self._sigma**2 / 2)


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


def _by_kind(*kinds: str) -> Discriminator:
    *others, last = (f'"{kind}"' for kind in kinds)
    return Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message=f'must have a "kind" of {", ".join(others)} or {last}',
    )


Length: TypeAlias = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Lognormal, Tag("lognormal")],
    _by_kind("constant", "uniform", "lognormal"),
]


class NoLimit(_Fields):
    """The request sets no output limit."""

    kind: Literal["none"] = "none"

    def limit(self, output_tokens: int) -> int | None:
        del output_tokens
        return None


class FixedLimit(_Fields):
    """`tokens` for every request; longer answers are cut there."""

    kind: Literal["fixed"]
    tokens: Count

    def limit(self, output_tokens: int) -> int | None:
        del output_tokens
        return self.tokens


class MultipleLimit(_Fields):
    """`times` what the answer will have: a client that knows its answers roughly."""

    kind: Literal["multiple"]
    times: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)]

    def limit(self, output_tokens: int) -> int | None:
        return math.ceil(self.times * output_tokens)


OutputLimit: TypeAlias = Annotated[
    Annotated[NoLimit, Tag("none")]
    | Annotated[FixedLimit, Tag("fixed")]
    | Annotated[MultipleLimit, Tag("multiple")],
    _by_kind("none", "fixed", "multiple"),
]

KINDS: Final = frozenset({"constant", "uniform", "lognormal", "none", "fixed", "multiple"})
"""Pydantic puts these into the place of a problem, where no field has such a name."""
