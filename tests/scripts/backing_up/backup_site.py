"""A deployment's folder, and `scripts/backup_monitor.py` in it."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from backups import cli
from service_process import ADMIN_KEY, clean_environment

KEY, OTHER_KEY = "a-key-of-east-0123456789abcdef", "a-key-of-west-0123456789abcdef"
LIMIT_S = 30.0

SEED = {
    "backup": "python scripts/backup_monitor.py backup --config-file instance_configs.json "
    "--state-file instance_states.json",
    "monitor": "python scripts/backup_monitor.py monitor --file instance_configs.json "
    "--interval 300",
    "job": "python scripts/backup_monitor.py job --config-file instance_configs.json "
    "--state-file instance_states.json --interval 3600",
}


def config(name: str, **fields: Any) -> dict[str, Any]:
    base = f"https://{name}.openai.azure.com"
    return {"name": name, "api_key": KEY, "api_base": base, "supported_models": ["m"], **fields}


CONFIGS = {"east": config("east"), "west": config("west", api_key=OTHER_KEY, priority=5)}
STATES = {"east": {"name": "east", "total_requests": 5}}


def file_of(site: Path, kind: str) -> Path:
    return site / f"instance_{kind}s.json"


def put(site: Path, kind: str, document: object) -> None:
    """As the service does it: another file in the place of the old one."""
    text = document if isinstance(document, str) else json.dumps(document)
    temporary = site / "temporary"
    temporary.write_text(text)
    temporary.rename(file_of(site, kind))


def start(site: Path, *words: str, python: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *python, "scripts/backup_monitor.py", *words],
        cwd=site,
        env=clean_environment(ADMIN_API_KEY=ADMIN_KEY),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(site: Path, *words: str) -> tuple[int, str, str]:
    """Exit status, output, messages; no key is in them. In this process, which takes less time."""
    output, messages = io.StringIO(), io.StringIO()
    environment, folder = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(clean_environment(ADMIN_API_KEY=ADMIN_KEY))
    os.chdir(site)
    try:
        with redirect_stdout(output), redirect_stderr(messages):
            status = cli.main(list(words))
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
    return without_keys(status, output.getvalue(), messages.getvalue())


def run_as_written(site: Path, line: str, *python: str) -> tuple[int, str, str]:
    """As `run`, but what the operator would see who types `line`."""
    running = start(site, *shlex.split(line)[2:], python=python)
    output, messages = running.communicate(timeout=LIMIT_S)
    return without_keys(running.returncode, output, messages)


def without_keys(status: int, output: str, messages: str) -> tuple[int, str, str]:
    for key in (KEY, OTHER_KEY, ADMIN_KEY):
        assert key not in output + messages
    return status, output, messages


def backup(site: Path) -> str:
    """Makes a backup; its name."""
    status, output, messages = run(site, "backup", "--json")
    assert (status, messages) == (0, "")
    name: str = json.loads(output)["backup"]
    return name


def names(site: Path) -> list[str]:
    return sorted(name for name in os.listdir(site / "backups") if not name.startswith("."))


NOW = 1000.0


@contextmanager
def process(site: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    running = start(site, *words)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def next_event(running: subprocess.Popen[str]) -> dict[str, Any]:
    assert running.stdout is not None
    event: dict[str, Any] = json.loads(running.stdout.readline())
    return event


def end(running: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str, str]:
    running.send_signal(how)
    output, messages = running.communicate(timeout=LIMIT_S)
    return running.returncode, output, messages
