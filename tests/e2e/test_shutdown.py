"""What ends the service's process, and what can't hold it. Real process, sockets and clock."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import h2.connection
import pytest
import trio
from faulty_upstream import (
    Script,
    Wire,
    chunk,
    event,
    faulty_upstream,
    head_of_stream,
    then_hang,
)
from whole_service import chat, instance, talk

ROOT = Path(__file__).parents[2]
STALLED_LIMIT_S = 12.0
"""For a drain of no time: two seconds to wind up, and a slow machine."""

Client = Callable[[trio.SocketStream], Awaitable[None]]


class Process:
    """`python -m proxy`. `lines`: of its log, as far as it was read."""

    def __init__(self, process: trio.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.port = 0
        self._log = b""

    async def wait_for(self, pattern: str) -> str:
        """What the pattern's group finds in the log."""
        assert self.process.stderr is not None
        while not (found := re.search(pattern, self._log.decode())):
            data = await self.process.stderr.receive_some()
            assert data, f"ended, and had logged: {self._log.decode()}"
            self._log += data
        return found[1]

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        """Its log is read meanwhile, so that it can't wait for us."""
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self._log += data
        return await self.process.wait()

    def state(self) -> dict[str, int]:
        """Of its one instance, as it was saved."""
        states: dict[str, dict[str, int]] = json.loads((self.folder / "states.json").read_text())
        return states["one"]


@asynccontextmanager
async def service(folder: Path, url: str, drain_s: float) -> AsyncIterator[Process]:
    (folder / "configs.json").write_text(json.dumps({"one": instance(url)}))
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "INSTANCE_CONFIG_FILE": str(folder / "configs.json"),
        "INSTANCE_STATE_FILE": str(folder / "states.json"),
        "ADMIN_API_KEY": "admin-key-for-tests",
        "SHUTDOWN_TIMEOUT_SECONDS": str(drain_s),
        "PORT": "0",
    }
    process = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", "proxy"],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    running = Process(process, folder)
    try:
        with trio.fail_after(60):
            running.port = int(await running.wait_for(r"serving on http://127\.0\.0\.1:(\d+)"))
            yield running
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(5):
            await process.wait()
        await process.stderr.aclose()


def stream_in_two(middle: trio.Event) -> Script:
    """A stream whose second half comes once `middle` is set."""

    async def script(wire: Wire) -> None:
        await wire.read_request()
        await wire.send(head_of_stream() + chunk(event("begun")))
        await middle.wait()
        await wire.send(chunk(event("ended") + b"data: [DONE]\n\n") + b"0\r\n\r\n")

    return script


async def endless(wire: Wire) -> None:
    await wire.read_request()
    await wire.send(head_of_stream())
    while True:
        await wire.send(chunk(event("x" * 2000)) * 10)


async def test_a_stream_in_flight_is_finished_and_its_usage_remembered(tmp_path: Path) -> None:
    middle = trio.Event()
    async with (
        faulty_upstream(stream_in_two(middle)) as upstream,
        service(tmp_path, upstream.url, drain_s=50) as running,
    ):
        client = await running.connect()
        await client.send_all(chat(stream=True))
        received = b""
        while b"begun" not in received:
            received += await client.receive_some()
        running.signal(signal.SIGTERM)
        await running.wait_for("SIGTERM: (finishing)")
        with pytest.raises(OSError, match="all attempts to connect"):
            await running.connect()
        middle.set()
        async for data in client:
            received += data
        assert received.endswith(b"0\r\n\r\n")
        assert b"ended" in received
        assert b"[DONE]" in received
        await client.aclose()
        assert await running.exit_status() == 0
        state = running.state()
        assert (state["total_requests"], state["successful_requests"]) == (1, 1)


# -- clients that would hold it ----------------------------------------------------------------


async def reads_nothing(client: trio.SocketStream) -> None:
    await client.send_all(chat(stream=True))
    await trio.sleep_forever()


async def sends_byte_by_byte(client: trio.SocketStream) -> None:
    for byte in chat():
        await client.send_all(bytes([byte]))
        await trio.sleep(0.2)


async def stops_in_the_body(client: trio.SocketStream) -> None:
    await client.send_all(chat()[:-5])
    await trio.sleep_forever()


async def stays_idle(client: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def stays_idle_after_an_answer(client: trio.SocketStream) -> None:
    await talk(client, b"GET /v1/models HTTP/1.1\r\nhost: proxy\r\n\r\n")
    await trio.sleep_forever()


async def stalls_on_a_page(client: trio.SocketStream) -> None:
    """Served by the application, not by the engine."""
    head = b"POST /admin/instances HTTP/1.1\r\nhost: proxy\r\ncontent-length: 100\r\n"
    await client.send_all(head + b"x-admin-api-key: admin-key-for-tests\r\n\r\n{")
    await trio.sleep_forever()


async def stays_idle_over_http2(client: trio.SocketStream) -> None:
    talk2 = h2.connection.H2Connection()
    talk2.initiate_connection()
    await client.send_all(talk2.data_to_send())
    await trio.sleep_forever()


async def reads_nothing_over_http2(client: trio.SocketStream) -> None:
    _, _, body = chat(stream=True).partition(b"\r\n\r\n")
    talk2 = h2.connection.H2Connection()
    talk2.initiate_connection()
    fields = {":method": "POST", ":path": "/v1/chat/completions", ":scheme": "http"}
    headers = {**fields, ":authority": "proxy", "content-type": "application/json"}
    talk2.send_headers(1, list(headers.items()))
    talk2.send_data(1, body, end_stream=True)
    await client.send_all(talk2.data_to_send())
    await trio.sleep_forever()


HOLDING: tuple[Client, ...] = (
    reads_nothing,
    sends_byte_by_byte,
    stops_in_the_body,
    stays_idle,
    stays_idle_after_an_answer,
    stalls_on_a_page,
    stays_idle_over_http2,
    reads_nothing_over_http2,
)


async def held(client: trio.SocketStream, hold: Client) -> None:
    """The process may hang up at any moment; what matters is that it ends."""
    try:
        await hold(client)
    except (trio.BrokenResourceError, EOFError):
        await trio.sleep_forever()
    finally:
        client.socket.close()


async def test_no_client_holds_the_process(tmp_path: Path) -> None:
    async with (
        faulty_upstream(endless) as upstream,
        service(tmp_path, upstream.url, drain_s=0.3) as running,
        trio.open_nursery() as clients,
    ):
        for hold in HOLDING:
            clients.start_soon(held, await running.connect(), hold)
        await upstream.wait_open(2)
        await trio.sleep(0.5)  # for the others to stall: nothing says when they have
        running.signal(signal.SIGTERM)
        with trio.fail_after(STALLED_LIMIT_S):
            assert await running.exit_status() == 0
        clients.cancel_scope.cancel()
        assert running.state()["total_requests"] == 2


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, second: signal.Signals) -> None:
    async with (
        faulty_upstream(then_hang()) as upstream,
        service(tmp_path, upstream.url, drain_s=1000) as running,
    ):
        client = await running.connect()
        await client.send_all(chat())
        await upstream.wait_open(1)
        running.signal(signal.SIGTERM)
        await running.wait_for("SIGTERM: (finishing)")
        running.signal(second)
        with trio.fail_after(STALLED_LIMIT_S):
            assert await running.exit_status() == 0
        assert running.state()["total_requests"] == 1, "what was known is saved all the same"
        await upstream.wait_open(0)
        await client.aclose()
