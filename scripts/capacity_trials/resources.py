"""The ways in which the resources of a trial count, drawn by the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actors.models import InstanceConfig
from proxy.planning.resources import ResourceSpec, ResourceSpecs

if TYPE_CHECKING:
    import random

MODEL: Final = "gpt-4o"
TPM: Final = (60_000, 30_000, 10_000)

WAYS: Final[dict[str, dict[str, Any]]] = {
    "fixed minute": {},
    "fixed minute, requests per second": {"pacing_s": 1},
    "sliding": {"window": "sliding"},
    "bucket": {"window": "bucket"},
    "fixed minute, corrected": {"charging": "corrected"},
    "bucket, corrected": {"window": "bucket", "charging": "corrected"},
    "sliding, actual": {"window": "sliding", "charging": "actual"},
    "fixed minute, actual": {"charging": "actual"},
    "sliding, imprecise": {"window": "sliding", "imprecision": 0.02},
    "fixed minute, counts prompts higher": {"prompt_factor": 1.1},
    "sliding, counts prompts lower": {"window": "sliding", "prompt_factor": 0.85},
    "fixed minute, counts refused calls": {"counts_refused": "all"},
}
"""Each the default with a difference: see docs/capacity.md. All of them tell by headers."""


def instances() -> tuple[InstanceConfig, ...]:
    """60 000, 30 000 and 10 000 tokens per minute, for one model."""
    return tuple(
        InstanceConfig(
            name=f"tpm-{tpm}",
            api_key="unused",
            api_base=f"https://tpm-{tpm}.openai.azure.com",
            supported_models=(MODEL,),
            max_tpm=tpm,
        )
        for tpm in TPM
    )


def drawn(rng: random.Random, changes: dict[str, Any]) -> tuple[ResourceSpecs, list[str]]:
    """A way for each instance, and their names. `changes`: what is the same for all of them."""
    ways = rng.sample(list(WAYS), len(TPM))
    specs = {
        f"tpm-{tpm}": ResourceSpec(**(WAYS[way] | changes))
        for tpm, way in zip(TPM, ways, strict=True)
    }
    return ResourceSpecs(instances=specs), ways
