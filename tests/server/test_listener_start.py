"""How a listener starts, and why it does not."""

from __future__ import annotations

import socket

import httpx
import pytest
import trio
from engine import ScriptedExchange
from hypercorn.utils import LifespanFailureError
from listening import listening, small_app

from proxy.server.limits import Limits
from proxy.server.listen import ListenFailed, open_listeners, raise_open_file_limit
from proxy.server.server import Server


async def test_an_app_that_can_not_start_stops_the_start():
    app = small_app()

    @app.before_serving
    async def fail() -> None:
        raise RuntimeError("no database")

    listeners = await open_listeners("127.0.0.1", 0, backlog=1)
    server = Server(ScriptedExchange(), lambda: app, limits=Limits())
    reported = []
    with pytest.RaisesGroup(
        pytest.RaisesExc(LifespanFailureError, match="no database"), flatten_subgroups=True
    ):
        async with trio.open_nursery() as nursery:
            reported = await nursery.start(server.run, listeners)
    assert reported == [], "it never said that it serves"
    assert listeners[0].socket.fileno() == -1


async def test_an_app_without_a_lifespan_will_do():
    async def bare(scope, receive, send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"bare"})

    async with listening(app=bare) as here, httpx.AsyncClient(base_url=here.url) as client:
        assert (await client.get("/page")).content == b"bare"


async def test_a_port_in_use_is_explained():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenFailed, match=rf"127.0.0.1:{port}: another program is using"):
            await open_listeners("127.0.0.1", port, backlog=1)


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [("192.0.2.1", 0, "does not have that address"), ("name.invalid", 0, "cannot listen on name")],
)
async def test_other_failures_are_explained(host: str, port: int, reason: str):
    with pytest.raises(ListenFailed, match=reason):
        await open_listeners(host, port, backlog=1)


async def test_all_addresses_of_a_machine_share_a_port():
    listeners = await open_listeners("", 0, backlog=1)
    ports = {one.socket.getsockname()[1] for one in listeners}
    assert len(ports) == 1
    for one in listeners:
        one.socket.close()


def test_the_open_file_limit_is_raised():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert raise_open_file_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
