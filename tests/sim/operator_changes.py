"""What an operator changes during a run, and the instance that is spared the worst of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio
from harness import RunningSystem
from world import CHAT, EMBEDDINGS

if TYPE_CHECKING:
    import random

HAVEN: Final = "haven"
HEALTHY: Final = {"status": "healthy", "last_error": None}


def own_model(name: str) -> str:
    """Served by this instance alone."""
    return f"gpt-4o-of-{name}"


CONFIG_CHANGES: Final[dict[str, Callable[[random.Random, str], dict[str, Any]]]] = {
    "switch": lambda rng, name: {"enabled": rng.random() < 0.6},
    "limit": lambda rng, name: {"max_tpm": rng.choice((500, 20_000, 100_000))},
    "move": lambda rng, name: {
        "api_base": f"https://{rng.choice((name, f'{name}-2'))}.openai.azure.com"
    },
    "new key": lambda rng, name: {
        "api_key": rng.choice((f"key-of-{name}-0123456789", f"second-key-of-{name}"))
    },
    "wrong address": lambda rng, name: {"api_base": "https://nowhere.openai.azure.com"},
    "priority": lambda rng, name: {
        "priority": rng.randrange(6 if name == HAVEN else 0, 10),
        "weight": rng.randrange(200),
    },
    "times": lambda rng, name: {"timeout_seconds": rng.choice((2.0, 10.0, 30.0))},
    "models": lambda rng, name: {
        "supported_models": [*rng.choice(((CHAT,), (CHAT, EMBEDDINGS))), own_model(name)]
    },
}
CHANGES: Final = (*CONFIG_CHANGES, "add", "add", "remove", "state")
CHANGES_OF_THE_HAVEN: Final = ("priority", "move", "new key")
STATES: Final[tuple[Callable[[RunningSystem], dict[str, Any]], ...]] = (
    lambda system: {"status": "healthy"},
    lambda system: {"status": "rate_limited"},
    lambda system: {"status": "error", "last_error": "set by the operator"},
    lambda system: {"error_count": 0, "current_tpm": 77},
    lambda system: {"rate_limited_until": system.clock.epoch(trio.current_time()) + 30},
)
