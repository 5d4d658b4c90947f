"""An exchange that knows who keeps what, over real actors and simulated resources in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from fakes import FakeAnswer, FakeRequest, FakeUpstream, FakeWriter
from harness import RunningSystem, instance_config, running_system
from trio.testing import wait_all_tasks_blocked

from actors.models import InstanceConfig
from proxy.bound.bound import Bound
from proxy.bound.owners import Owners
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.ports import Upstream, UpstreamFailure, UpstreamRequest
from proxy.exchange.record import RequestRecord
from proxy.simulator.demo import simulated_resource
from proxy.simulator.deployment import INSTANT
from proxy.simulator.resource import DEFAULT_KEY, Resource
from proxy.simulator.upstream import SimulatedUpstream
from proxy.tokens.output import Allowance

MODELS = ("gpt-4o", "gpt-4.1")


def keeper(name: str, priority: int, **fields: Any) -> InstanceConfig:
    """An instance in front of a simulated resource of its own."""
    defaults: dict[str, Any] = {
        "api_key": DEFAULT_KEY,
        "api_version": "2025-04-01-preview",
        "priority": priority,
        "max_tpm": 10**6,
        "supported_models": MODELS,
    }
    return instance_config(name, **{**defaults, **fields})


class Sea:
    """The resources, some of which may be cut off. `sent`: method and place of every request."""

    def __init__(self, resources: dict[str, Resource]) -> None:
        self._upstream = SimulatedUpstream(resources)
        self.cut_off: set[str] = set()
        self.sent: list[str] = []

    async def send(self, request: UpstreamRequest) -> Any:
        name = request.config.name
        path = request.url.split("?")[0].split("/openai/")[-1].removeprefix("v1/")
        self.sent.append(f"{name}: {request.method} {path}")
        if name in self.cut_off:
            raise UpstreamFailure("connect", "refused", "connection refused")
        return await self._upstream.send(request)

    async def forget(self, instance: str) -> None:
        pass


class BoundBench:
    def __init__(self, system: RunningSystem, upstream: Upstream, owners: Owners) -> None:
        self.system = system
        self.owners = owners
        self.records: list[RequestRecord] = []
        means = Means(system.leases, upstream, Allowance(), max_wait_s=10.0)
        self.exchange = Exchange(
            means=means,
            models=ModelList(system.administration),
            keys=ClientKeys(()),
            max_running=100,
            record=self.records.append,
            bound=Bound(means, owners, system.supervisor.configs),
        )

    async def ask(
        self, method: str, path: str, body: Any = None, *, query: bytes = b"", **headers: str
    ) -> FakeWriter:
        """`body`: a document for JSON, or bytes with `content_type` in `headers`."""
        raw = body or b""
        if not isinstance(raw, bytes):
            raw = json.dumps(body).encode()
        listed = [(b"content-type", b"application/json")]
        if headers:
            listed = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        request = FakeRequest(path, [raw] if raw else [], method, query, listed)
        writer = FakeWriter()
        await self.exchange.handle(request, writer)
        await wait_all_tasks_blocked()
        assert writer.finished or writer.aborted
        return writer

    async def post(self, path: str, **fields: Any) -> FakeWriter:
        return await self.ask("POST", path, fields)

    async def respond(self, **fields: Any) -> FakeWriter:
        return await self.post("/v1/responses", **{"model": "gpt-4o", "input": "hello", **fields})


def document(writer: FakeWriter) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(writer.body)
    return found


def by(writer: FakeWriter) -> str:
    """Which instance answered; "" if none did."""
    return (writer.header(b"x-proxy-instance") or b"").decode()


class Shore(BoundBench):
    """With the sea in sight."""

    sea: Sea


@asynccontextmanager
async def shore(*configs: InstanceConfig, owners: Owners | None = None) -> AsyncIterator[Shore]:
    """One resource for each host among the `api_base`s."""
    found = {}
    for number, config in enumerate(configs):
        host = config.api_base.removeprefix("https://").split("/")[0]
        found[host] = simulated_resource(host, MODELS, tpm=10**6, latency=INSTANT, seed=number)
    async with running_system(*configs) as system:
        sea = Sea(found)
        bench = Shore(system, sea, owners if owners is not None else Owners(1000))
        bench.sea = sea
        yield bench
        for child in system.supervisor._children.values():
            assert child.standing.account.leases == {}


class Faked(BoundBench):
    upstream: FakeUpstream


class Slow:
    """Answers after `seconds`. `most`: how many requests it has had in hand at a time."""

    def __init__(self, seconds: float, answer: FakeAnswer) -> None:
        self._seconds = seconds
        self._answer = answer
        self._in_hand = 0
        self.most = 0

    async def __call__(self, request: UpstreamRequest) -> FakeAnswer:
        self._in_hand += 1
        self.most = max(self.most, self._in_hand)
        await trio.sleep(self._seconds)
        self._in_hand -= 1
        return self._answer


@asynccontextmanager
async def fakes(owners: Owners | None = None, **answers: Any) -> AsyncIterator[Faked]:
    """One upstream per answer, but for names that are alike before the `_`: they have the same."""
    configs = [
        generic(name, priority, api_base=f"http://{name.split('_')[0]}", api_key="key-of-all-01")
        if "_" in name
        else generic(name, priority)
        for priority, name in enumerate(answers)
    ]
    async with running_system(*configs) as system:
        upstream = FakeUpstream(**answers)
        bench = Faked(system, upstream, owners or Owners(100))
        bench.upstream = upstream
        yield bench
        await wait_all_tasks_blocked()
        for config in configs:
            assert system.standing(config.name).account.leases == {}


def generic(name: str, priority: int, **fields: Any) -> InstanceConfig:
    return instance_config(
        name,
        provider_type="generic",
        priority=priority,
        **{"api_base": f"http://{name}", "supported_models": ["gpt-4"], **fields},
    )


def made(identity: str, **fields: Any) -> FakeAnswer:
    return FakeAnswer(pieces=[json.dumps({"id": identity, **fields}).encode()])
