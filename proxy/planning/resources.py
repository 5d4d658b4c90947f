"""Each instance of a configuration as a simulated Azure resource with its limits."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from actors.models import DEFAULT_API_VERSION
from proxy.simulator.deployment import Deployment, HeaderMode, HintMode, Latency
from proxy.simulator.limiter import Charging, Limits, WindowKind
from proxy.simulator.resource import DEFAULT_KEY, Resource
from proxy.simulator.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.clock import WallClock
    from actors.models import InstanceConfig

CHUNK_TOKENS: Final = 64
"""Per event of a simulated stream. Real ones have a few; capacity does not depend on it, and an
hour is over sooner."""
NO_CONTEXT_LIMIT: Final = 10**9
EMBEDDING_PREFIX: Final = "text-embedding"
"""Models that begin so are asked for embeddings, all others for chat completions."""

Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Changes = tuple[tuple[Annotated[float, Field(ge=0)], Share], ...]


class ResourceSpec(BaseModel):
    """How a resource counts and refuses; see docs/capacity.md. Its tokens per minute are the
    instance's `max_tpm`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: WindowKind = "minute"
    phase_s: Seconds | None = None
    """Where the boundaries of a fixed minute lie; None: anywhere, by the seed."""
    charging: Charging = "estimate"
    counts_refused: Literal["none", "requests", "all"] = "requests"
    rpm_per_1000_tpm: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 6.0
    """0: no limit on requests."""
    pacing_s: Literal[1, 10] | None = 10
    imprecision: Share = 0.0
    clock_skew_s: Seconds = 0.0
    stranger: Changes = ()
    """(second, share): from then on somebody else takes this share of the quota."""
    effective: tuple[
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0, le=1)]], ...
    ] = ()
    """(second, share): from then on this share of `max_tpm` is in force."""
    prompt_factor: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1.0
    assumed_output_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 16
    headers: HeaderMode = "full"
    hint: HintMode = "ms"
    first_token_s: Seconds = 0.3
    per_token_s: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.01

    @model_validator(mode="after")
    def _changes_in_order(self) -> Self:
        for field, changes in (("stranger", self.stranger), ("effective", self.effective)):
            times = [at_s for at_s, _ in changes]
            if times != sorted(times):
                raise ValueError(f"{field} must be in the order of its times; sort it")
        return self

    def limits(self, tpm: int, rng: random.Random) -> Limits:
        """The limiter's configuration. `rng` gives the phase if none is set."""
        drawn = rng.uniform(0, 60)
        return Limits(
            tpm=tpm,
            rpm=None if self.rpm_per_1000_tpm else 0,
            rpm_per_1000_tpm=self.rpm_per_1000_tpm,
            window=self.window,
            phase_s=drawn if self.phase_s is None else self.phase_s,
            charging=self.charging,
            counts_refused=self.counts_refused,
            pacing_s=self.pacing_s,
            imprecision=self.imprecision,
            clock_skew_s=self.clock_skew_s,
            effective=Steps(1.0, self.effective),
            stranger=Steps(0.0, self.stranger),
        )


class ResourceSpecs(BaseModel):
    """`instances`: what is different from `default`, by the name of the instance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: ResourceSpec = ResourceSpec()
    instances: dict[str, ResourceSpec] = Field(default_factory=dict)

    def of(self, instance: str) -> ResourceSpec:
        own = self.instances.get(instance)
        if own is None:
            return self.default
        return self.default.model_copy(
            update={name: getattr(own, name) for name in own.model_fields_set}
        )


class Simulated(NamedTuple):
    """`config`: as the configuration says, with address and key of `resource`."""

    config: InstanceConfig
    host: str
    resource: Resource


def simulated(
    config: InstanceConfig,
    number: int,
    spec: ResourceSpec,
    models: Iterable[str],
    seed: int,
    wall: WallClock | None,
) -> Simulated:
    """The resource of one instance, with a deployment for each of `models` that it serves.

    `number` gives its host a name that no other has. `wall`: what the resource takes for epoch
    time; None: the real one. Deterministic given `seed`.
    """
    rng = random.Random(f"{seed}/{config.name}")  # noqa: S311 - a simulation, repeatable
    latency = Latency(first_token_s=spec.first_token_s, per_token_s=spec.per_token_s, jitter_s=0)
    deployments = {
        config.deployment(model): Deployment(
            name=config.deployment(model),
            model=EMBEDDING_PREFIX if model.startswith(EMBEDDING_PREFIX) else "gpt-4o",
            limits=spec.limits(config.max_tpm, rng),
            latency=latency,
            context_tokens=NO_CONTEXT_LIMIT,
            assumed_output_tokens=spec.assumed_output_tokens,
            prompt_factor=spec.prompt_factor,
            chunk_tokens=CHUNK_TOKENS,
            headers=spec.headers,
            hint=spec.hint,
        )
        for model in models
        if config.serves(model)
    }
    resource = Resource(config.name, deployments.values(), seed=seed, wall=wall)
    host = f"resource-{number}.simulated"
    update = {
        "api_base": f"https://{host}",
        "api_key": DEFAULT_KEY,
        "api_version": DEFAULT_API_VERSION,
    }
    return Simulated(config.model_copy(update=update), host, resource)
