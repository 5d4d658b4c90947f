"""What an hour of traffic leaves in the service's files: minutes that are full of requests, limits
that headers told of and others use of, and as many ids as are remembered.

Written by the service's own code, so that it is read as if the service had been started again.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from actors.clock import WallClock, wall_now
from actors.messages import Demand, Evidence, LeaseId, Outcome
from actors.models import InstanceConfig
from actors.policy.standing import Standing
from proxy.bound.journal import JournalFile, journal_path

from .wire import MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IDS = 100_000
"""What is remembered of them by default; 28 a second make as many in an hour."""
_MINUTE_S = 60
_REQUESTS_PER_S = 10
"""Of each instance: one in each slot of its windows."""
_DEMAND = Demand(MODEL, 71, 71, 71, 64)
_USED_TOKENS = 119
_LIMIT_TOKENS = 100_000_000_000
_EVIDENCE = Evidence(
    limit_tokens=_LIMIT_TOKENS,
    remaining_tokens=_LIMIT_TOKENS - 1_000_000,  # more than ours: others use it too
    limit_requests=100_000_000,
    remaining_requests=99_999_999,
)


def write(state_file: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """The state file and the journal beside it hold what was up to now."""
    now = wall_now()
    records = {name: _record(config, now) for name, config in configs.items()}
    state_file.write_text(json.dumps(records))
    names = list(configs)
    JournalFile(journal_path(state_file)).replace(
        [(f"responses/{response_id(n)}", names[n % len(names)]) for n in range(IDS)]
    )


def response_id(number: int) -> str:
    """The id of a response that is remembered, for numbers below `IDS`."""
    return f"resp_{number:048x}"


def _record(config: Mapping[str, Any], now: float) -> dict[str, Any]:
    standing = Standing(InstanceConfig.model_validate(config), random.Random(1))
    for number in range(_MINUTE_S * _REQUESTS_PER_S):
        lease_id = LeaseId(number)
        at = now - _MINUTE_S + number / _REQUESTS_PER_S
        standing.reserve(lease_id, _DEMAND, at)
        standing.settle(lease_id, Outcome("success", latency_s=0.5), _USED_TOKENS, at, _EVIDENCE)
    return standing.record(now, WallClock(0.0))
