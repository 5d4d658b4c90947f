"""What the tests share that run the service in front of simulated resources."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal

from proxy.simulator.resource import Resource

Listener = Literal["engine", "hypercorn"]
ADMIN_KEY, CLIENT_KEY = "admin-key-for-tests", "client-key-for-tests"
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
