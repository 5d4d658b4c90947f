"""The service as a process that is killed, or asked to stop, while it works. Real files, real
sockets, real clock."""

from __future__ import annotations

import http.client
import json
import os
import queue
import random
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "admin-key-of-the-kill-test"
LIMIT_S = 30
"""Until the process has started or ended, or a request is answered."""
WRITERS = 4


class Process:
    """`python -m proxy` on the two files in `folder`."""

    def __init__(self, folder: Path) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "proxy"],
            cwd=folder,
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                "INSTANCE_CONFIG_FILE": str(folder / "configs.json"),
                "INSTANCE_STATE_FILE": str(folder / "states.json"),
                "ADMIN_API_KEY": ADMIN_KEY,
                "PORT": "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._log: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for(r"serving on http://127\.0\.0\.1:(\d+)"))

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.put(line)

    def wait_for(self, pattern: str) -> str:
        """Waits for a line of the log; what the pattern's group has found in it."""
        while True:
            found = re.search(pattern, self._log.get(timeout=LIMIT_S))
            if found:
                return found[1]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, negative for the signal that killed it."""
        status = self._process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        return status

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(LIMIT_S)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def ask(self, method: str, path: str, document: object = None) -> tuple[int, Any]:
        """Status and document of the answer. Errors: as `http.client`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            body = None if document is None else json.dumps(document)
            headers = {"X-Admin-API-Key": ADMIN_KEY, "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@contextmanager
def running(folder: Path) -> Iterator[Process]:
    process = Process(folder)
    try:
        yield process
    finally:
        process.close()


@dataclass
class Writer:
    """Changes one instance of its own again and again, and adds others.

    `weight`: of the last change that was acknowledged; `tried`: of the last one sent.
    """

    name: str
    rng: random.Random
    weight: int = 0
    tried: int = 0
    added: list[str] = field(default_factory=list)
    asked_to_add: int = 0

    def write(self, process: Process, acknowledged: queue.SimpleQueue[str]) -> None:
        """Until the connection breaks."""
        while True:
            try:
                if self.rng.random() < 0.2:
                    self._add(process)
                else:
                    self._change(process)
            except (OSError, http.client.HTTPException):
                return
            acknowledged.put(self.name)

    def _add(self, process: Process) -> None:
        self.asked_to_add += 1
        name = f"{self.name}.{self.asked_to_add}"
        status, answer = process.ask("POST", "/admin/instances", {"name": name, **minimal()})
        assert status == 201, answer
        self.added.append(name)

    def _change(self, process: Process) -> None:
        self.tried += 1
        path = f"/admin/instances/{self.name}/config"
        status, answer = process.ask("PUT", path, {"weight": self.tried})
        assert status == 200, answer
        self.weight = self.tried


def minimal() -> dict[str, Any]:
    return {"api_key": "a-key-0123456789abcdef", "api_base": "https://one.example"}


def storm_and_kill(process: Process, writers: list[Writer], changes: int) -> None:
    """Kills once so many changes are acknowledged, the next ones being under way."""
    acknowledged: queue.SimpleQueue[str] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=writer.write, args=(process, acknowledged)) for writer in writers
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(changes):
            acknowledged.get(timeout=LIMIT_S)
    finally:
        process.signal(signal.SIGKILL)
        for thread in threads:
            thread.join(LIMIT_S)
    assert process.wait() == -signal.SIGKILL


def check_file(path: Path) -> dict[str, Any]:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def check_kept(instances: dict[str, Any], writers: list[Writer]) -> None:
    """All that was acknowledged is there; what was under way may be."""
    for writer in writers:
        weight = instances[writer.name]["config"]["weight"]
        assert writer.weight <= weight <= writer.tried
        writer.weight = writer.tried = weight
        assert set(writer.added) <= instances.keys()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_killed_in_a_storm_of_changes_no_acknowledged_one_is_lost(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when it fails
    rng = random.Random(seed)
    writers = [Writer(f"w{number}", random.Random(rng.random())) for number in range(WRITERS)]
    configs, states = tmp_path / "configs.json", tmp_path / "states.json"
    configs.write_text(json.dumps({writer.name: minimal() for writer in writers}))
    for writer in writers:
        writer.weight = writer.tried = 100
    for _ in range(3):
        with running(tmp_path) as process:
            _, answer = process.ask("GET", "/admin/instances")
            check_kept(answer["instances"], writers)
            storm_and_kill(process, writers, rng.randrange(10, 80))
        check_file(configs)
        if states.exists():
            check_file(states)
    with running(tmp_path) as process:
        _, answer = process.ask("GET", "/admin/instances")
        check_kept(answer["instances"], writers)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert check_file(configs).keys() == answer["instances"].keys()
    assert check_file(states).keys() == answer["instances"].keys()
    assert sorted(path.name for path in tmp_path.iterdir() if ".lock" not in path.name) == [
        "configs.json",
        "states.json",
    ], "what the killed processes had begun is cleared away"


# -- asked to stop -----------------------------------------------------------------------------

CHAT = json.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }
).encode()


class SlowUpstream(ThreadingHTTPServer):
    """Answers a request when `let_go` is set; `asked` is set when one has come."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked, self.let_go = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), _SlowAnswer)


class _SlowAnswer(BaseHTTPRequestHandler):
    server: SlowUpstream
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.set()
        assert self.server.let_go.wait(LIMIT_S)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(CHAT)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(CHAT)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def slow_upstream() -> Iterator[SlowUpstream]:
    with SlowUpstream() as upstream:
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        try:
            yield upstream
        finally:
            upstream.let_go.set()
            upstream.shutdown()
            thread.join(LIMIT_S)


def test_asked_to_stop_it_finishes_what_runs_and_remembers_it(tmp_path: Path) -> None:
    with slow_upstream() as upstream:
        config = {
            "api_key": "a-key-0123456789abcdef",
            "api_base": f"http://127.0.0.1:{upstream.server_port}",
            "supported_models": ["gpt-4o"],
        }
        (tmp_path / "configs.json").write_text(json.dumps({"slow": config}))
        with running(tmp_path) as process:
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}]}
            answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
            client = threading.Thread(
                target=lambda: answers.put(process.ask("POST", "/v1/chat/completions", body))
            )
            client.start()
            assert upstream.asked.wait(LIMIT_S)
            process.signal(signal.SIGTERM)
            process.wait_for("SIGTERM: (finishing)")
            with pytest.raises(OSError):
                process.ask("GET", "/healthz")
            upstream.let_go.set()
            status, answer = answers.get(timeout=LIMIT_S)
            client.join(LIMIT_S)
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello")
            assert process.wait() == 0
    state = check_file(tmp_path / "states.json")["slow"]
    assert (state["total_requests"], state["successful_requests"]) == (1, 1)
    assert (state["current_tpm"], state["status"]) == (10, "healthy")
