"""Processes of a run: the upstream, and the peer that is measured, each on its core."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import meter
from .peers import SCRIPTS, Command, Peer, Setting, Site
from .wire import CHAT_PATH, chat_body

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_S = 0.002
_STOP_LIMIT_S = 10.0


class PeerFailed(Exception):
    """A peer did not start, ended, or did not answer as it should; the text says how."""


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that has given its first answer. `pid` is None without a process."""

    port: int
    pid: int | None
    started_s: float

    def cpu_s(self) -> float:
        """Of all its processes: some peers start one only when it is needed."""
        return sum(map(meter.cpu_s, self._pids()))

    def resident_bytes(self) -> int:
        return meter.resident_bytes(self._pids())

    def _pids(self) -> list[int]:
        return [] if self.pid is None else meter.process_tree(self.pid)


@contextmanager
def upstream(cores: set[int]) -> Iterator[tuple[int, int]]:
    """Serves; gives its port and process id."""
    with _children_on(cores):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarking.upstream"],
            stdout=subprocess.PIPE,
            env=_environment({"PYTHONPATH": str(SCRIPTS)}),
        )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.communicate()


@contextmanager
def running(
    peer: Peer, upstream_port: int, cores: set[int], setting: Setting = Setting()
) -> Iterator[Running]:
    """The peer serves until the block ends, in a folder that is deleted then.

    Errors: `PeerFailed`.
    """
    if peer.command is None:
        yield Running(upstream_port, None, 0.0)
        return
    with tempfile.TemporaryDirectory(prefix=f"benchmark-{peer.name}-") as name:
        folder = Path(name)
        site = Site(folder, _free_port(), upstream_port, setting)
        command = peer.command(site)
        log = folder / "output.log"
        started_at = time.perf_counter()
        try:
            process = _start(command, folder, log, cores)
        except OSError as error:
            raise PeerFailed(f"{peer.name} can't be started: {error}") from error
        try:
            _wait_for_answer(peer, site.port, process, log)
            started_s = time.perf_counter() - started_at
            yield Running(site.port, process.pid, started_s)
            if process.poll() is not None:
                raise PeerFailed(f"{peer.name} ended while it was measured: {_last_lines(log)}")
        finally:
            _stop(process)


@contextmanager
def _children_on(cores: set[int]) -> Iterator[None]:
    """Processes that are started in the block run on `cores`, with all their threads."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Ours, but without HTTP proxies: everything is on the loopback."""
    ours = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    return ours | more


def _start(command: Command, folder: Path, log: Path, cores: set[int]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output, _children_on(cores):
        return subprocess.Popen(
            command.words,
            cwd=folder,
            env=_environment(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks the process to end; afterwards nothing is left of it and its children."""
    process.terminate()
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        print("A peer did not end when asked and was killed.", file=sys.stderr)
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_answer(peer: Peer, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.perf_counter() + peer.start_limit_s
    status = None
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise PeerFailed(f"{peer.name} did not start: {_last_lines(log)}")
        with suppress(OSError, http.client.HTTPException):  # it does not listen yet
            status = first_answer(port, peer.authorization)
        if status == 200:
            return
        time.sleep(_POLL_S)
    said = "no answer" if status is None else f"status {status}"
    raise PeerFailed(
        f"{peer.name}: {said} for {peer.start_limit_s:.0f} s after its start: {_last_lines(log)}"
    )


def first_answer(port: int, authorization: str) -> int:
    """The status of one small chat request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"authorization": authorization, "content-type": "application/json"}
    try:
        connection.request("POST", CHAT_PATH, chat_body(400), headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def _last_lines(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-5:]) or "it wrote nothing"
