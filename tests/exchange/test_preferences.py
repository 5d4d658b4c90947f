"""What a request asks for reaches the one who decides."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import FakeUpstream, FakeWriter, chat, completion
from harness import instance_config, running_system

from actors.messages import Acquire
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.tokens.output import Allowance


async def asked(headers: list[tuple[bytes, bytes]], monkeypatch: Any, **fields: Any) -> Acquire:
    """What the router is asked for on behalf of a request."""
    async with running_system(instance_config("one", max_tpm=10**6)) as system:
        seen: list[Acquire] = []
        handle = system.router.handle

        def noted(message: Any, now: float) -> None:
            seen.append(message)
            handle(message, now)

        monkeypatch.setattr(system.router, "handle", noted)
        exchange = Exchange(
            means=Means(system.leases, FakeUpstream(one=completion()), Allowance(), 10.0),
            models=ModelList(system.administration),
            keys=ClientKeys(()),
            max_running=100,
            record=lambda record: None,
        )
        request = chat(**fields)
        request.headers += headers
        writer = FakeWriter()
        await exchange.handle(request, writer)
        assert writer.status == 200
        return seen[0]


async def test_without_any_wish_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = await asked([], monkeypatch)
    assert (ask.affinity, ask.priority, ask.again) == (None, 100, False)


async def test_priority_and_a_retry_are_told_to_the_router(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = [(b"x-priority", b"7"), (b"x-stainless-retry-count", b"1")]
    ask = await asked(headers, monkeypatch)
    assert (ask.priority, ask.again) == (7, True)


async def test_a_prompt_cache_key_is_told_to_the_router(monkeypatch: pytest.MonkeyPatch) -> None:
    first = await asked([], monkeypatch, prompt_cache_key="tenant")
    second = await asked([], monkeypatch, prompt_cache_key="tenant", temperature=0.5)
    assert first.affinity == second.affinity is not None
