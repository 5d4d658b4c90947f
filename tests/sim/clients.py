"""The clients of a run: how many come, what they ask for, and which of them leave."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio
from fakes import FakeRequest, FakeWriter
from weather import AT_FAULT
from world import CHAT, EMBEDDINGS, TEXT, leave

if TYPE_CHECKING:
    import random

    from chaos import Chaos
    from keepsakes import Keepsakes

    from proxy.exchange.exchange import Exchange


@dataclass
class Client:
    """`at_fault`: whoever answers tells it so. `kept`: asks about what an instance keeps, which no
    other one may have. `left`: went away before the end of its answer."""

    stream: bool
    at_fault: bool
    kept: bool = False
    writer: FakeWriter = field(default_factory=FakeWriter)
    left: bool = False
    answered: bool = False


class Clients:
    """Those of one run; `sent`: all that have come, by the id of their request."""

    def __init__(self, chaos: Chaos, rng: random.Random, kept: Keepsakes) -> None:
        self._chaos = chaos
        self._rng = rng
        self._kept = kept
        self.sent: dict[str, Client] = {}

    async def send(self, exchange: Exchange, seconds: float) -> None:
        rng = self._rng
        async with trio.open_nursery() as clients:
            ends_at = trio.current_time() + seconds
            while True:
                await trio.sleep(rng.expovariate(self._chaos.per_min / 60))
                if trio.current_time() >= ends_at:
                    return
                clients.start_soon(self._client, exchange, clients)

    async def _client(self, exchange: Exchange, others: trio.Nursery) -> None:
        rng = self._rng
        with trio.CancelScope() as scope:
            if rng.random() < self._chaos.leaving:
                others.start_soon(leave, scope, rng)
            if rng.random() < self._chaos.kept:
                await self._ask_for_kept(exchange)
            else:
                await self.ask(exchange, CHAT if rng.random() < 0.8 else EMBEDDINGS)

    async def _ask_for_kept(self, exchange: Exchange) -> None:
        request = self._kept.request()
        client = await self._send(exchange, request, Client(False, at_fault=False, kept=True))
        self._kept.learn(client.writer)

    async def ask(self, exchange: Exchange, model: str) -> Client:
        rng = self._rng
        text = TEXT[: min(len(TEXT), 20 + int(rng.expovariate(1 / 300)))]
        stream, at_fault = model == CHAT and rng.random() < 0.5, rng.random() < self._chaos.at_fault
        at_fault = at_fault and model in (CHAT, EMBEDDINGS)
        path: str = "/v1/embeddings"
        fields: dict[str, Any] = {"model": model, "input": text}
        if model != EMBEDDINGS:
            messages = [{"role": "user", "content": text}]
            fields = {"model": model, "messages": messages, "stream": stream, "max_tokens": 99}
            path = "/v1/chat/completions"
        if at_fault:
            fields["user"] = AT_FAULT
        if rng.random() < 0.3:
            fields["prompt_cache_key"] = f"conversation {rng.randrange(5)}"
        request = FakeRequest(path, [json.dumps(fields).encode()])
        return await self._send(exchange, request, Client(stream, at_fault))

    async def _send(self, exchange: Exchange, request: FakeRequest, client: Client) -> Client:
        name = f"request-{len(self.sent)}"
        self.sent[name] = client
        request.headers.append((b"x-request-id", name.encode()))
        try:
            await exchange.handle(request, client.writer)
            client.answered = True
        finally:
            client.left = not client.answered
        return client
