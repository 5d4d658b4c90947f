"""What an upstream tells of its limit, and leases to be told of."""

from __future__ import annotations

from actors.messages import Evidence, LeaseId


def lease(number: int) -> LeaseId:
    return LeaseId(number)


def says(limit: int, remaining: int) -> Evidence:
    return Evidence(limit_tokens=limit, remaining_tokens=remaining)
