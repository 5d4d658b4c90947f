"""A trial with everything real but the models: sockets, processes, the clock.

The service runs as a process of its own. The simulated resources are behind sockets in this one,
so that what they counted can be read, and so are the clients.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import trio

from proxy.planning import prompts
from proxy.planning.memory import Reply
from proxy.planning.rehearsal import Rehearsal
from proxy.simulator.serving import serve_resource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from proxy.planning.arrivals import Ask
    from proxy.planning.findings import Findings
    from proxy.planning.rehearsal import Scenario
    from proxy.planning.resources import Simulated

REPOSITORY: Final = Path(__file__).parents[2]
_ANSWER_LIMIT_S: Final = 120.0
_START_LIMIT_S: Final = 30.0
_STOP_LIMIT_S: Final = 40.0
_STARTED: Final = "serving on "


class ServiceFailed(Exception):
    """The service did not start, or ended too soon; the text has the end of its log."""


def rehearse_over_sockets(scenario: Scenario, seed: int) -> Findings:
    """Runs all of it in real time. Errors: `ServiceFailed`."""
    return trio.run(_rehearse, scenario, seed)


async def _rehearse(scenario: Scenario, seed: int) -> Findings:
    resources = scenario.resources(seed, wall=None)
    with tempfile.TemporaryDirectory(prefix="capacity-") as folder:
        async with trio.open_nursery() as nursery:
            urls = {
                each.config.name: await nursery.start(serve_resource, each.resource, "127.0.0.1", 0)
                for each in resources
            }
            _write_config(Path(folder), resources, urls)
            async with _service(Path(folder), scenario) as service:
                rehearsal = Rehearsal(scenario.traffic, resources, seed)
                async with _client() as client:
                    findings = await rehearsal.run(
                        SocketClient(client, service.url, service.asked_at), lambda: 0
                    )
            for line in service.requests:
                identity = line["request_id"]
                rehearsal.note(
                    identity,
                    service.asked_at.pop(identity),
                    line["status"],
                    line["wait_ms"] / 1000,
                )
            nursery.cancel_scope.cancel()
    return findings


def _client() -> httpx.AsyncClient:
    # Without a limit: see the note on httpx in docs/decisions/0005-an-engine-of-our-own.md.
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(limits=limits, timeout=_ANSWER_LIMIT_S, trust_env=False)


class SocketClient:
    """Asks over HTTP. `asked_at` gets the trio time of each request by its id."""

    def __init__(self, client: httpx.AsyncClient, url: str, asked_at: dict[str, float]) -> None:
        self._client = client
        self._url = url
        self._asked_at = asked_at

    async def ask(self, ask: Ask, number: int, request_id: str, retries: int) -> Reply:
        self._asked_at[request_id] = trio.current_time()
        response = await self._client.post(
            self._url + prompts.path(ask.model),
            content=prompts.body(ask, number),
            headers={
                "content-type": "application/json",
                "x-request-id": request_id,
                "x-stainless-retry-count": str(retries),
            },
        )
        told = response.headers.get("retry-after-ms")
        return Reply(response.status_code, None if told is None else int(told) / 1000)


def _write_config(folder: Path, resources: list[Simulated], urls: Mapping[str, str]) -> None:
    configs: dict[str, dict[str, Any]] = {}
    for each in resources:
        name = each.config.name
        configs[name] = {**each.config.model_dump(), "api_base": urls[name]}
    text = json.dumps(configs, indent=2)
    (folder / "instance_configs.json").write_text(text, encoding="utf-8")


@dataclass
class _Service:
    """`requests`: the line of each request in its log, complete once it has ended."""

    url: str = ""
    asked_at: dict[str, float] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    other_lines: list[str] = field(default_factory=list)


@asynccontextmanager
async def _service(folder: Path, scenario: Scenario) -> AsyncIterator[_Service]:
    """Runs for the length of the block; afterwards its log has been read to the end."""
    environ = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    environ |= {
        "PYTHONPATH": str(REPOSITORY),
        "PORT": "0",
        "ADMIN_API_KEY": "key-of-the-capacity-trials",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "INFO",
        "MAX_QUEUE_WAIT_SECONDS": str(scenario.max_wait_s),
        "ROUTING_STRATEGY": scenario.strategy,
    }
    process = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", "proxy"],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    service = _Service()
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(_START_LIMIT_S):
                await nursery.start(_read_log, process, service)
            yield service
            process.terminate()
            with trio.fail_after(_STOP_LIMIT_S):
                await process.wait()
    finally:
        process.kill()


async def _read_log(
    process: trio.Process,
    service: _Service,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    assert process.stderr is not None
    rest = b""
    async for chunk in process.stderr:
        *lines, rest = (rest + chunk).split(b"\n")
        for text in lines:
            line = _parsed(text)
            if "wait_ms" in line:  # others name the request that caused them, too
                service.requests.append(line)
                continue
            service.other_lines.append(text.decode(errors="replace"))
            message = str(line.get("message", ""))
            if message.startswith(_STARTED):
                service.url = message.removeprefix(_STARTED).split(",")[0]
                task_status.started()
    if not service.url:
        raise ServiceFailed(" / ".join(service.other_lines[-5:]) or "it wrote nothing")


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
