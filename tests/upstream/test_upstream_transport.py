"""httpx over the pool."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
from faulty_upstream import (
    CHAT,
    GOOD,
    answer,
    chunk,
    closing_on_second,
    faulty_upstream,
    head_of_stream,
    refused_url,
    serving,
    stream,
    then_close,
    then_hang,
    then_reset,
)

from proxy.upstream.dial import SocketDialer
from proxy.upstream.transport import PoolTransport
from proxy.upstream.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def transport(**environ: str) -> AsyncIterator[PoolTransport]:
    watch = Watch()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        yield PoolTransport(SocketDialer(), watch, environ=environ)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(timeout_s: float = 5.0, **environ: str) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        transport(**environ) as below,
        httpx.AsyncClient(transport=below, timeout=timeout_s) as made,
    ):
        yield made


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_requests_of_all_kinds_on_one_connection() -> None:
    async with faulty_upstream(serving()) as server, client() as http:
        url = f"{server.url}/token?a=b%20c"
        assert (await http.get(url)).json()["id"] == "chatcmpl-1"
        assert (await http.post(url, data={"grant": "x y"})).content == CHAT
        assert (await http.post(url, json={})).status_code == 200
        assert (await http.post(url, content=pieces(b"ab", b"", b"cd"))).status_code == 200
        sized = {"content-length": "4"}
        assert (await http.put(url, content=pieces(b"ab", b"cd"), headers=sized)).is_success
        assert server.connections == 1
        assert [(each.method, each.target, each.body) for each in server.requests] == [
            ("GET", "/token?a=b%20c", b""),
            ("POST", "/token?a=b%20c", b"grant=x+y"),
            ("POST", "/token?a=b%20c", b"{}"),
            ("POST", "/token?a=b%20c", b"abcd"),
            ("PUT", "/token?a=b%20c", b"abcd"),
        ]
        hosts = {each.headers["host"] for each in server.requests}
        assert hosts == {server.url.removeprefix("http://")}
        assert "content-length" not in server.requests[0].headers
        assert server.requests[3].headers["transfer-encoding"] == "chunked"
        assert server.requests[4].headers["content-length"] == "4"


@pytest.mark.parametrize("name", GOOD)
async def test_odd_but_legal_answers(name: str) -> None:
    async with faulty_upstream(GOOD[name]) as server, client() as http:
        response = await http.get(server.url)
        assert b"data: [DONE]" in response.content if "stream" in name else response.json()


async def test_an_answer_that_is_left_early_closes_its_connection() -> None:
    script = serving(head_of_stream() + chunk(b"x"))
    async with faulty_upstream(script) as server, transport() as below:
        response = await below.handle_async_request(httpx.Request("GET", server.url))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        assert await anext(aiter(response.stream)) == b"x"
        await response.aclose()
        with trio.fail_after(5):
            await server.wait_open(0)


async def test_a_stream_read_to_its_end_keeps_it() -> None:
    async with faulty_upstream(serving(stream())) as server, client() as http:
        for _ in range(2):
            async with http.stream("GET", server.url) as response:
                assert [line async for line in response.aiter_lines()][-2] == "data: [DONE]"
        assert server.connections == 1


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (then_reset(), httpx.ReadError),
        (then_close(answer()[:-3]), httpx.ReadError),
        (then_close(b"nonsense"), httpx.RemoteProtocolError),
        (then_hang(), httpx.ReadTimeout),
        (then_hang(answer()[:-3]), httpx.ReadTimeout),
    ],
)
async def test_failures_are_those_of_httpx(script: object, error: type[Exception]) -> None:
    timeout_s = 0.05 if error is httpx.ReadTimeout else 5.0
    async with faulty_upstream(script) as server, client(timeout_s) as http:  # type: ignore[arg-type]
        with pytest.raises(error):
            await http.get(server.url)


async def test_addresses_that_lead_nowhere() -> None:
    async with client() as http:
        with refused_url() as url, pytest.raises(httpx.ConnectError):
            await http.get(url)
    async with client(http_proxy="socks5://p:1") as http:
        with pytest.raises(httpx.ConnectError, match="scheme"):
            await http.get("http://h.example")


async def test_a_body_that_can_be_read_once_is_not_sent_twice() -> None:
    async with faulty_upstream(closing_on_second(answer()), serving()) as server, client() as http:
        await http.post(server.url, content=b"x")
        with pytest.raises(httpx.WriteError):
            await http.post(server.url, content=pieces(b"once"))
        await http.post(server.url, content=b"y")


async def test_the_environments_proxy_is_asked() -> None:
    async with faulty_upstream(serving()) as middle, client(http_proxy=middle.url) as http:
        await http.get("http://far.example/x")
        assert middle.requests[0].target == "http://far.example/x"
        assert middle.requests[0].headers["host"] == "far.example"
