"""Signals stop the whole process as they should; in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from engine import get, post, read_answers, receive_all
from listening import listening

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from functools import partial
import trio
from engine import ScriptedExchange
from listening import small_app
from proxy.server.limits import Limits
from proxy.server.run import serve

async def handle(reader, writer):
    print("began", flush=True)
    if reader.path == "/v1/shielded":
        with trio.CancelScope(shield=True):
            await writer.start(200, [])
            while True:
                await writer.write(bytes(65536))
    await trio.sleep(float(reader.query or b"1000"))
    await writer.respond(200, [], b"finished")

async def main():
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(
            serve, ScriptedExchange(handle), small_app, host="127.0.0.1", port=0,
            limits=Limits(), drain_s=float(sys.argv[1]), notice_s=float(sys.argv[2]),
            on_drain=lambda: print("draining", flush=True),
            on_hangup=lambda: print("hangup", flush=True),
        ))
        print(urls[0], flush=True)
    print("ended", flush=True)

trio.run(main)
"""


class Running:
    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._output = b""

    async def line(self) -> str:
        """The next line that the program prints."""
        assert self.process.stdout is not None
        while b"\n" not in self._output:
            data = await self.process.stdout.receive_some()
            assert data, "the program has ended"
            self._output += data
        line, self._output = self._output.split(b"\n", 1)
        return line.decode()


@asynccontextmanager
async def program(drain_s: float, notice_s: float = 0.0):
    """The program above, serving; and a way to connect to it."""
    environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'server'}"}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", PROGRAM, str(drain_s), str(notice_s)],
        env=environ,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    clients = []

    async def connect() -> trio.SocketStream:
        clients.append(await trio.open_tcp_stream("127.0.0.1", port))
        return clients[-1]

    try:
        with trio.fail_after(30):
            running = Running(process)
            port = int((await running.line()).rsplit(":", 1)[1])
            yield running, connect
    finally:
        for client in clients:
            client.socket.close()
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(5):
            await process.wait()
        await process.stdout.aclose()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_drains(number: signal.Signals):
    async with program(drain_s=20) as (running, connect):
        idle, busy = await connect(), await connect()
        await busy.send_all(post(b"", "/v1/x?0.3"))
        assert await running.line() == "began"
        running.process.send_signal(number)
        assert await running.line() == "draining"
        assert await receive_all(idle) == b""
        [answer] = read_answers(await receive_all(busy))
        assert (answer.status, answer.body) == (200, b"finished")
        assert await running.line() == "ended"
        assert await running.process.wait() == 0


async def test_with_notice_everybody_is_served_and_told_to_go_elsewhere():
    async with program(drain_s=20, notice_s=1000) as (running, connect):
        earlier = await connect()
        await earlier.send_all(post(b"", "/v1/x?0"))
        assert await running.line() == "began"
        assert b"connection: close" not in await earlier.receive_some()
        running.process.send_signal(signal.SIGTERM)
        assert await running.line() == "draining"
        later = await connect()
        for client in (earlier, later):
            await client.send_all(post(b"", "/v1/x?0"))
            assert await running.line() == "began"
        [answer] = read_answers(await receive_all(earlier))
        assert (answer.status, answer.headers[b"connection"]) == (200, b"close")
        assert (await later.receive_some()).startswith(b"HTTP/1.1 200")
        running.process.send_signal(signal.SIGTERM)
        assert await running.line() == "ended"


async def test_an_interrupt_gives_no_notice():
    async with program(drain_s=20, notice_s=1000) as (running, _):
        running.process.send_signal(signal.SIGINT)
        assert await running.line() == "draining"
        with trio.fail_after(5):
            assert await running.line() == "ended"


async def test_a_connection_opened_after_the_notice_is_told_too(monkeypatch):
    monkeypatch.setattr("proxy.server.server.TICK_S", 0.01)
    async with listening() as here:
        here.server.wind_down()
        client = await here.connect()
        answer = b""
        with trio.fail_after(5):
            while b"connection: close" not in answer:
                await client.send_all(get())
                answer = await client.receive_some()
                assert answer.startswith(b"HTTP/1.1 200")
        assert await receive_all(client) == b""


async def test_the_second_signal_is_immediate():
    async with program(drain_s=1000) as (running, connect):
        client = await connect()
        await client.send_all(get())
        assert await running.line() == "began"
        running.process.send_signal(signal.SIGTERM)
        assert await running.line() == "draining"
        running.process.send_signal(signal.SIGTERM)
        with trio.fail_after(5):
            assert await running.line() == "ended"
            assert await running.process.wait() == 0


async def test_a_stalled_client_does_not_hold_the_process():
    async with program(drain_s=0.1) as (running, connect):
        client = await connect()
        await client.send_all(get("/v1/shielded"))
        assert await running.line() == "began"
        running.process.send_signal(signal.SIGTERM)
        assert await running.line() == "draining"
        with trio.fail_after(10):
            assert await running.line() == "ended"
            assert await running.process.wait() == 0


async def test_a_hangup_calls_its_hook_and_nothing_else():
    async with program(drain_s=0) as (running, connect):
        running.process.send_signal(signal.SIGHUP)
        assert await running.line() == "hangup"
        client = await connect()
        await client.send_all(post(b"", "/v1/x?0"))
        assert await running.line() == "began"
        assert (await client.receive_some()).startswith(b"HTTP/1.1 200")
