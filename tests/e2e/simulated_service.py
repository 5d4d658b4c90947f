"""What the tests share that run the service in front of simulated resources."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import trio

from proxy.simulator.demo import simulated_resource
from proxy.simulator.deployment import INSTANT
from proxy.simulator.resource import DEFAULT_KEY, Resource
from proxy.simulator.serving import serve_resource

CLIENT_KEY = "client-key-for-tests"
MODELS = (
    "gpt-4o", "text-embedding-3-small", "gpt-35-turbo-instruct", "whisper-1", "tts-1",
    "dall-e-3", "omni-moderation-latest",
)  # fmt: skip


@dataclass
class Running:
    """`url`: of the proxy. `resources`: behind it, in the order of priority."""

    url: str
    resources: list[Resource]
    urls: dict[str, str] = field(default_factory=dict)


Start = Callable[..., AbstractAsyncContextManager[Running]]


async def simulated_instances(
    nursery: trio.Nursery, *tpm: int, **fields: Any
) -> tuple[list[Resource], dict[str, dict[str, Any]]]:
    """Simulated resources that answer until `nursery` ends, and the configuration of the instance
    that each of them is; the first comes first."""
    resources, configs = [], {}
    for number, limit in enumerate(tpm):
        resource = simulated_resource(f"r{number}", MODELS, tpm=limit, latency=INSTANT, seed=number)
        resources.append(resource)
        configs[resource.name] = {
            "api_key": DEFAULT_KEY,
            "api_base": await nursery.start(serve_resource, resource, "127.0.0.1", 0),
            "api_version": "2025-04-01-preview",
            "priority": number,
            "max_tpm": limit,
            "supported_models": list(MODELS),
            **fields,
        }
    return resources, configs
