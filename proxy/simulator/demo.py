"""Three resources that differ in limits, latency and region, for a first look at the proxy."""

from __future__ import annotations

from proxy.simulator.deployment import Deployment, Latency
from proxy.simulator.limiter import Limits
from proxy.simulator.resource import DEFAULT_KEY, Resource

DEMO_MODELS = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")
_DEMO = (
    ("sim-eastus", "East US", 60_000, 0.25, 0.020),
    ("sim-westeurope", "West Europe", 30_000, 0.40, 0.030),
    ("sim-japaneast", "Japan East", 10_000, 0.60, 0.045),
)
"""Name, region, tokens per minute, time to the first token, time per token."""


def demo_resources() -> list[Resource]:
    """The largest and fastest first. All accept `proxy.simulator.resource.DEFAULT_KEY`."""
    return [
        simulated_resource(
            name,
            DEMO_MODELS,
            tpm=tpm,
            region=region,
            latency=Latency(
                first_token_s=first_token_s, per_token_s=per_token_s, jitter_s=per_token_s / 4
            ),
        )
        for name, region, tpm, first_token_s, per_token_s in _DEMO
    ]


def simulated_resource(
    name: str,
    models: tuple[str, ...],
    *,
    tpm: int,
    rpm: int | None = None,
    region: str = "East US",
    latency: Latency = Latency(),
    api_key: str = DEFAULT_KEY,
    seed: int = 0,
) -> Resource:
    """A resource on the real clock with one standard deployment per model, called like it."""
    limits = Limits(tpm=tpm, rpm=rpm)
    deployments = [
        Deployment(name=model, model=model, limits=limits, latency=latency) for model in models
    ]
    return Resource(name, deployments, region=region, api_keys=(api_key,), seed=seed, wall=None)
