"""Refused credentials, missing deployments and outages: in the state, in the log, and their end."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import trio
from faulty_service import Faulty, Instance, faulty_service
from faulty_upstream import answer, serving
from served import ADMIN_KEY

LIMIT_S = 10
NO_DEPLOYMENT = {
    "code": "DeploymentNotFound",
    "message": "The API deployment for this resource does not exist.",
}
DENIED = {"code": "401", "message": "Access denied due to invalid subscription key."}


def refusing(status: str, error: dict[str, str]) -> bytes:
    return answer(json.dumps({"error": error}).encode(), status)


async def served_by(running: Faulty, model: str = "gpt-4o") -> str:
    """The instance that answered with 200, or the code of the refusal."""
    body = {"model": model, "messages": []}
    got = await running.http.post("/v1/chat/completions", json=body, headers={"x-max-wait-ms": "0"})
    if got.status_code == 200:
        return got.headers["x-proxy-instance"]
    return f"{got.status_code} {got.json()['error']['code']}"


async def declare_healthy(running: Faulty, name: str) -> None:
    got = await running.http.put(
        f"/admin/instances/{name}/state",
        json={"status": "healthy"},
        headers={"X-Admin-API-Key": ADMIN_KEY},
    )
    assert got.status_code == 200


def changes(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Of instance one, with their reasons."""
    return [
        (record.getMessage().removeprefix("instance one: "), getattr(record, "reason", ""))
        for record in caplog.records
        if record.getMessage().startswith("instance one: ")
    ]


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_refused_credentials(
    status: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = serving(refusing(status, DENIED), answer())
    instances = Instance("one", (script,)), Instance("two", (serving(),))
    with trio.fail_after(LIMIT_S):
        async with faulty_service(tmp_path, *instances) as running:
            assert [await served_by(running) for _ in range(3)] == ["two"] * 3
            assert len(running.upstreams["one"].requests) == 1
            state = await running.state("one")
            assert (state["status"], state["health_status"]) == ("error", "error")
            assert (state["error_count"], state["connection_status"]) == (1, "connected")
            assert "Access denied" in state["last_error"]
            assert state["last_error_time"] > 0
            [(change, reason)] = changes(caplog)
            assert change == "healthy -> credential_refused"
            assert reason.startswith(f"{status[:3]} 401: Access")
            await declare_healthy(running, "one")
            assert (await running.state("one"))["status"] == "healthy"
            assert await served_by(running) == "one"


async def test_a_missing_deployment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = serving(refusing("404 Not Found", NO_DEPLOYMENT), answer())
    models: Any = {"supported_models": ["gpt-4o", "other"]}
    instances = Instance("one", (script,), models), Instance("two", (serving(),), models)
    with trio.fail_after(LIMIT_S):
        async with faulty_service(tmp_path, *instances) as running:
            assert [await served_by(running) for _ in range(2)] == ["two"] * 2
            assert await served_by(running, "other") == "one"
            state = await running.state("one")
            assert state["status"] == "healthy"
            assert "DeploymentNotFound" in state["last_error"]
            [(change, reason)] = changes(caplog)
            assert change == "healthy -> model_missing"
            assert reason.startswith("404 Deployment")
            await declare_healthy(running, "one")
            assert await served_by(running) == "one"


async def test_an_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    down = refusing("503 Service Unavailable", {"code": "down", "message": "m"})
    script = serving(*[down] * 5, answer())
    instances = Instance("one", (script,)), Instance("two", (serving(),))
    with trio.fail_after(LIMIT_S):
        async with faulty_service(tmp_path, *instances) as running:
            assert [await served_by(running) for _ in range(7)] == ["two"] * 7
            assert len(running.upstreams["one"].requests) == 5
            state = await running.state("one")
            assert (state["status"], state["error_count"]) == ("error", 5)
            assert state["last_error"] == "503 down: m"
            assert changes(caplog) == [("breaker_closed -> breaker_open", "503 down: m")]
            await declare_healthy(running, "one")
            assert (await running.state("one"))["status"] == "healthy"
            assert [await served_by(running) for _ in range(2)] == ["one"] * 2


async def test_without_another_instance_the_client_is_told_what_holds(tmp_path: Path) -> None:
    script = serving(refusing("401 Unauthorized", DENIED))
    with trio.fail_after(LIMIT_S):
        async with faulty_service(tmp_path, Instance("one", (script,))) as running:
            assert await served_by(running) == "502 upstream_authentication_failed"
            assert await served_by(running) == "503 no_instance_available"
            assert len(running.upstreams["one"].requests) == 1
