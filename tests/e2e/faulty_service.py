"""The whole service on the real clock, in front of upstreams that do what their scripts say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
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
    http2: bool = False,
) -> AsyncIterator[Faulty]:
    """Instances come in the order of their priority. `http2`: what its `http` speaks, so that
    Hypercorn answers."""
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
        versions = {"http1": not http2, "http2": http2}
        async with httpx.AsyncClient(base_url=url, timeout=30, **versions) as http:
            yield Faulty(url, http, service, upstreams)


def chat_request(*headers: str, **fields: Any) -> bytes:
    """A chat request as it goes over the wire. `headers`: lines beyond those that it needs."""
    body = _chat(fields)
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: proxy", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def http2_chat_request(**fields: Any) -> bytes:
    """The same in HTTP/2, with all that a new connection begins with. The bodies of answers can be
    read in what comes back; at most 64 KiB do."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    target = {":path": "/v1/chat/completions", ":scheme": "http", ":authority": "proxy"}
    connection.send_headers(1, [(":method", "POST"), *target.items()])
    connection.send_data(1, _chat(fields), end_stream=True)
    return connection.data_to_send()


def _chat(fields: dict[str, Any]) -> bytes:
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps(document).encode()
