"""The pools of several instances, and of one that moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from exchanging import CONFIG, counts, exchange, pools, read, request
from faulty_upstream import chunk, head_of_stream
from harness import instance_config
from memory_link import ANSWER, MemoryDialer

from actors.changes import Difference
from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.origin import Proxy
from proxy.upstream.pool import PoolStatistics

if TYPE_CHECKING:
    pass


async def test_any_number_of_addresses_of_one_instance() -> None:
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer) as upstream:
        for number in range(600):
            url = f"{CONFIG.api_base}/v1/responses/{number}"
            assert await exchange(upstream, request(url=url)) == b"ok"
        assert counts(upstream) == PoolStatistics(idle=1, opened=1, reused=599)
        targets = [line.split()[1] for line in dialer.links[0].sent.split(b"\n") if b"POST" in line]
        assert targets == [b"/v1/responses/%d" % number for number in range(600)]


async def test_instances_do_not_share_connections() -> None:
    dialer = MemoryDialer([ANSWER])
    twin = instance_config("two", api_base="http://one.example")
    async with pools(dialer) as upstream:
        await exchange(upstream)
        await exchange(upstream, request(twin))
        assert len(dialer.links) == 2
        assert counts(upstream, "one") == counts(upstream, "two")


async def test_a_new_key_keeps_the_connections_and_a_new_address_does_not() -> None:
    dialer = MemoryDialer([head_of_stream()], [ANSWER])
    moved = CONFIG.model_copy(update={"api_base": "http://moved.example:8080"})
    async with pools(dialer) as upstream:
        streaming = await upstream.send(request())
        await exchange(upstream, request(CONFIG.model_copy(update={"api_key": "another"})))
        await exchange(upstream, request(moved))
        assert [link.origin.authority for link in dialer.links] == [
            "one.example", "one.example", "moved.example:8080",
        ]  # fmt: skip
        dialer.links[0].deliver(chunk(b"still here"), b"0\r\n\r\n")
        assert await read(streaming) == b"still here"
        await exchange(upstream, request(moved))
        assert counts(upstream) == PoolStatistics(idle=3, opened=3, reused=1)


async def test_a_forgotten_instance_finishes_what_it_has_begun() -> None:
    dialer = MemoryDialer([head_of_stream()], [ANSWER])
    async with pools(dialer) as upstream:
        streaming = await upstream.send(request())
        await exchange(upstream)
        await upstream.forget("one")
        await upstream.forget("nobody")
        assert [link.closed for link in dialer.links] == [False, True]
        assert upstream.statistics() == {}
        dialer.links[0].deliver(chunk(b"end"), b"0\r\n\r\n")
        assert await read(streaming) == b"end"
        assert dialer.open_links == 0


async def test_of_a_change_only_what_moves_connections_closes_them() -> None:
    dialer = MemoryDialer([ANSWER])
    async with pools(dialer) as upstream:
        for change, closed in [
            (Difference(added=("two",), changed={"one": ("priority", "api_key")}), False),
            (Difference(removed=("two",)), False),
            (Difference(changed={"one": ("priority", "api_base")}), True),
            (Difference(changed={"one": ("proxy_url",)}), True),
            (Difference(removed=("one",)), True),
        ]:
            await exchange(upstream)
            upstream.follow(change)
            assert dialer.links[-1].closed == closed


async def test_the_proxy_comes_from_the_configuration_or_else_the_environment() -> None:
    dialer = MemoryDialer([ANSWER])
    environ = {"http_proxy": "http://user:pw@env.example:3128"}
    async with pools(dialer, environ=environ) as upstream:
        for fields in ({}, {"proxy_url": "http://own.example:1"}, {"proxy_url": ""}):
            config = instance_config("p", api_base="http://p.example", **fields)
            await exchange(upstream, request(config))
        assert [link.origin.proxy and link.origin.proxy.host for link in dialer.links] == [
            "env.example", "own.example", None,
        ]  # fmt: skip
        assert isinstance(dialer.links[0].origin.proxy, Proxy)
        assert dialer.links[0].sent.startswith(
            b"POST http://p.example/v1/chat/completions HTTP/1.1\r\nhost: p.example\r\n"
            b"proxy-authorization: Basic "
        )


async def test_a_proxy_that_can_not_be_used_is_no_way_round_it() -> None:
    environ = {"http_proxy": "socks5://u:secret@x"}
    async with pools(MemoryDialer([ANSWER]), environ=environ) as upstream:
        with pytest.raises(UpstreamFailure, match="scheme") as caught:
            await upstream.send(request(instance_config("s", api_base="http://s.example")))
        assert "secret" not in str(caught.value)
