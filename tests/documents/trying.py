"""Does what a page says, in a folder of its own, as a reader with a shell would."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from page import ROOT, Step

LIMIT_S = 60
"""For a command to end, or a service to be ready."""
INTERRUPTED = (-signal.SIGINT, 128 + signal.SIGINT)
"""The exit status of what Ctrl-C ended, as the system and as bash report it."""
LINKED = ("actors", "docs", "proxy", "scripts", "tests", ".env.example")
_PORT = re.compile(r":(\d+)\Z")


class WentWrong(Exception):
    """A step did not do what the page says."""


class Running:
    """A process and what it has printed so far."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.printed = ""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Errors: `WentWrong` if the process ends, or is silent, before it has printed that."""
        while not (found := re.search(pattern, self.printed)):
            try:
                line = self._lines.get(timeout=LIMIT_S)
            except queue.Empty:
                line = None
            if line is None:
                raise WentWrong(f"it did not print {pattern}, but\n{self.printed}")
            self.printed += line
        return found

    def end(self, number: signal.Signals | None = None) -> int:
        """Its exit status, once everything that it printed is in `printed`."""
        if number is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)
        try:
            status = self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise WentWrong(f"it did not end; it printed\n{self.printed}") from None
        finally:
            self.close()
        while (line := self._lines.get()) is not None:
            self.printed += line
        return status

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Reader:
    """Follows one page in `folder`. `stand_ins`: what the page says → what is there instead.

    Ports are stand-ins too: each service takes a free one, whatever the page says.
    """

    def __init__(self, folder: Path, stand_ins: dict[str, str]) -> None:
        self.folder = folder
        self._stand_ins = {
            "./scripts/run": "python -m proxy",
            "--port 8081": "--port 0",
            "/srv/proxy": str(folder),
            **stand_ins,
        }
        self._ports: dict[str, str] = {}
        self._latest_port = ""
        self._services = ExitStack()
        folder.mkdir(exist_ok=True)
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        self._add_tools()

    def _add_tools(self) -> None:
        """`python` is this one. curl says nothing of its progress, and fails where a page shows no
        answer that would tell a refusal."""
        tools = self.folder / ".tools"
        tools.mkdir()
        (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (tools / "python").chmod(0o755)
        quiet = "silent\nshow-error\nnoproxy = *\n"
        (self.folder / ".curlrc").write_text(quiet)
        (tools / ".curlrc").write_text(f"{quiet}fail\n")

    def close(self) -> None:
        self._services.close()

    def follow(self, step: Step) -> str:
        """What it printed, in the page's words. Errors: `WentWrong`."""
        notes, text = step.block.notes, self._in_fact(step.block.text)
        if "file" in notes:
            path = self.folder / notes["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return ""
        starters = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}
        environ = self._environ()
        if step.answer is None:
            environ["CURL_HOME"] = str(self.folder / ".tools")
        if _PORT.search(notes.get("service", "")):
            environ["PORT"] = "0"
        running = Running([*starters[step.block.language], text], self.folder, environ)
        if "service" in notes:
            self._services.callback(running.close)
            self._learn_port(running, notes["service"])
            return self._as_said(running.printed)
        if "until" in notes:
            try:
                running.wait_for(re.escape(notes["until"]))
            except BaseException:
                running.close()
                raise
            status = running.end(signal.SIGINT)
            status = 0 if status in INTERRUPTED else status
        else:
            status = running.end()
        if status != int(notes.get("exit", 0)):
            raise WentWrong(f"exit status {status}:\n{running.printed}")
        return self._as_said(running.printed)

    def _learn_port(self, running: Running, ready: str) -> None:
        port = _PORT.search(ready)
        pattern = re.escape(ready[: port.start()]) + r":(\d+)" if port else re.escape(ready)
        found = running.wait_for(pattern)
        if port:
            self._ports[port[1]] = self._latest_port = found[1]

    def _environ(self) -> dict[str, str]:
        return {
            **({"PORT": self._latest_port} if self._latest_port else {}),
            "PATH": f"{self.folder / '.tools'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }

    def _in_fact(self, text: str) -> str:
        for said, there in self._stand_ins.items():
            text = text.replace(said, there)
        for said, port in self._ports.items():
            text = re.sub(rf":{said}\b", f":{port}", text)
        return text

    def _as_said(self, text: str) -> str:
        for said, port in self._ports.items():
            text = re.sub(rf":{port}\b", f":{said}", text)
        for said, there in self._stand_ins.items():
            text = text.replace(there, said)
        return text
