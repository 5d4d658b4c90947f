"""The whole service on the real clock, in front of upstreams that do what their scripts say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio
from faulty_upstream import FaultyUpstream, Script, faulty_upstream, refused_url
from served import ADMIN_KEY, configure, served

from proxy.service import Service


@dataclass(frozen=True)
class Instance:
    """One instance, and what its upstream does; `scripts` is empty if nobody listens. `https`: its
    address says so; the scripts see the bytes all the same."""

    name: str
    scripts: tuple[Script, ...]
    fields: dict[str, Any] = field(default_factory=dict)
    https: bool = False


@dataclass
class Faulty:
    """`url`: of the service. `upstreams`: by the name of the instance."""

    url: str
    http: httpx.AsyncClient
    service: Service
    upstreams: dict[str, FaultyUpstream]

    async def connect(self) -> trio.SocketStream:
        """A client's connection."""
        host, port = self.url.removeprefix("http://").split(":")
        return await trio.open_tcp_stream(host, int(port))

    async def state(self, name: str) -> Any:
        """As the admin API shows it."""
        answer = await self.http.get(
            f"/admin/instances/{name}/state", headers={"X-Admin-API-Key": ADMIN_KEY}
        )
        return answer.json()

    def reserved(self) -> int:
        """Leases that are open now, on all instances."""
        return sum(each.leases for each in self.service.system.statistics().instances)


@asynccontextmanager
async def faulty_service(
    folder: Path,
    *instances: Instance,
    settings: dict[str, str] | None = None,
) -> AsyncIterator[Faulty]:
    """Instances come in the order of their priority."""
    async with AsyncExitStack() as stack:
        upstreams: dict[str, FaultyUpstream] = {}
        configs = {}
        for number, instance in enumerate(instances):
            if instance.scripts:
                upstream = await stack.enter_async_context(faulty_upstream(*instance.scripts))
                upstreams[instance.name] = upstream
                address = upstream.url
            else:
                address = stack.enter_context(refused_url())
            configs[instance.name] = {
                "api_key": f"key-of-{instance.name}-0123456789",
                "api_base": address.replace("http", "https") if instance.https else address,
                "api_version": "2024-10-21",
                "priority": number,
                "max_tpm": 10_000_000,
                "supported_models": ["gpt-4o"],
                **instance.fields,
            }
        configure(folder, configs)
        service, url = await stack.enter_async_context(served(folder, settings))
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            yield Faulty(url, http, service, upstreams)


def chat_request(*headers: str, **fields: Any) -> bytes:
    """A chat request as it goes over the wire. `headers`: lines beyond those that it needs."""
    body = json.dumps(
        {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **fields}
    ).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: proxy", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body
