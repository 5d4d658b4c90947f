"""`/simulator/…` of a simulated resource: its faults and its counters, over HTTP."""

from __future__ import annotations

import hmac
import ipaddress
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import trio
from pydantic import ValidationError
from quart import Quart, Response, request

from proxy.simulator.faults import parse_fault

if TYPE_CHECKING:
    from proxy.simulator.resource import Resource

CONTROL_KEY_HEADER = "X-Simulator-Key"


def add_controls(app: Quart, resource: Resource, control_key: str | None) -> None:
    """Adds the control routes. They need `control_key`; without one, a client on loopback."""

    def refused() -> Response | None:
        return None if _allowed(control_key) else _json({"error": "not allowed"}, 403)

    async def faults() -> Response:
        """GET: those that are on. POST: switches one on. DELETE: switches all off."""
        if (refusal := refused()) is not None:
            return refusal
        match request.method:
            case "POST":
                return _inject(resource, await request.get_data(False, False, False))
            case "DELETE":
                resource.faults.clear()
        return _active_faults(resource)

    async def fault(number: int) -> Response:
        if (refusal := refused()) is not None:
            return refusal
        resource.faults.clear(number)
        return _active_faults(resource)

    async def statistics() -> Response:
        return refused() or _statistics(resource)

    app.add_url_rule("/simulator/faults", "faults", faults, methods=["GET", "POST", "DELETE"])
    app.add_url_rule("/simulator/faults/<int:number>", "fault", fault, methods=["DELETE"])
    app.add_url_rule("/simulator/statistics", "statistics", statistics, methods=["GET"])


def _allowed(control_key: str | None) -> bool:
    if control_key is not None:
        given = request.headers.get(CONTROL_KEY_HEADER, "")
        return hmac.compare_digest(given.encode(), control_key.encode())
    client = request.scope.get("client")
    if client is None:
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def _inject(resource: Resource, document: bytes) -> Response:
    try:
        number = resource.faults.inject(parse_fault(document))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        return _json({"error": problems}, 422)
    except ValueError as error:
        return _json({"error": str(error)}, 409)
    return _json({"number": number}, 201)


def _active_faults(resource: Resource) -> Response:
    active = [
        {"number": number, "calls_left": left, **fault.shown()}
        for number, (fault, left) in resource.faults.active().items()
    ]
    return _json({"faults": active})


def _statistics(resource: Resource) -> Response:
    """What was let through and what was not, by deployment and by status."""
    now = trio.current_time()
    resource.start(now)
    counters = {}
    for name in resource.deployments:
        limiter = resource.limiter(name)
        counters[name] = {**asdict(limiter.tally()), **asdict(limiter.standing(now))}
    return _json({"name": resource.name, "statuses": resource.statuses, "deployments": counters})


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document), status=status, content_type="application/json")
