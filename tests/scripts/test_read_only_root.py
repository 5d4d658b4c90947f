"""The service in a place where nothing can be written but its own files, and its health check."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from service_process import ADMIN_KEY, clean_environment, running_service

ROOT = Path(__file__).parents[2]
LIMIT_S = 30

GUARDED = """
import errno, os, sys

ALLOWED = sys.argv[1].split(os.pathsep) + [os.devnull]
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink",
           "os.truncate", "os.chmod", "os.chown", "os.utime"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

def guard(event, arguments):
    if event == "open":
        path, _, flags = arguments
        paths = [path] if flags & WRITING else []
    elif event in CHANGES:
        paths = arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]
    else:
        return
    for path in paths:
        if isinstance(path, int):
            continue
        path = os.path.abspath(os.fsdecode(path))
        if not any(path == place or path.startswith(place + os.sep) for place in ALLOWED):
            sys.__stderr__.write(f"GUARD {event} {path}\\n")
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

sys.addaudithook(guard)
from proxy.cli import main
sys.exit(main([]))
"""
"""Makes everything but the places in its first argument read-only, as far as Python can see."""


@contextmanager
def guarded_service(places: list[Path], cwd: Path, **environ: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", GUARDED, os.pathsep.join(map(str, places))],
        cwd=cwd,
        env=clean_environment(ADMIN_API_KEY=ADMIN_KEY, PORT="0", **environ),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_nothing_is_written_but_the_two_files_and_the_log(tmp_path: Path) -> None:
    files, logs, cwd = tmp_path / "files", tmp_path / "logs", tmp_path / "cwd"
    for folder in (files, logs, cwd):
        folder.mkdir()
    with guarded_service(
        [files, logs],
        cwd,
        INSTANCE_CONFIG_FILE=str(files / "configs.json"),
        INSTANCE_STATE_FILE=str(files / "states.json"),
        LOG_DIR=str(logs),
        PYTHONDONTWRITEBYTECODE="1",
    ) as process:
        assert process.stderr is not None
        seen = ""
        while (url := re.search(r"serving on (http://[^\s,\"]+)", seen)) is None:
            line = process.stderr.readline()
            assert line, f"the service did not start: {seen}"
            seen += line
        record = {
            "name": "one",
            "api_key": "k-0123456789",
            "api_base": "http://127.0.0.1:9",
            "supported_models": ["gpt-4o"],
        }
        with httpx.Client(base_url=url[1], headers={"X-Admin-API-Key": ADMIN_KEY}) as client:
            assert client.post("/admin/instances", json=record).status_code == 201
            question = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
            assert client.post("/v1/chat/completions", json=question).status_code >= 500
            assert client.get("/metrics").status_code == 200
        process.send_signal(signal.SIGTERM)
        seen += process.stderr.read()
        assert process.wait(LIMIT_S) == 0, seen
    assert "GUARD" not in seen
    assert "Traceback" not in seen
    assert (files / "configs.json").stat().st_mode & 0o777 == 0o600
    assert (files / "states.json").stat().st_mode & 0o777 == 0o600
    assert (logs / "proxy.log").read_text()
    assert list(cwd.iterdir()) == []


def test_the_guard_guards(tmp_path: Path) -> None:
    """Files in a folder that can't be written stop the start; so the test above could fail."""
    with guarded_service([tmp_path / "elsewhere"], tmp_path) as process:
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 1
    assert "GUARD open" in errors
    assert "Read-only file system" in errors


def health(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The container's health check."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "proxy", "health", *options],
        env=clean_environment(PORT=url.rpartition(":")[2], HOST="0.0.0.0", PROXY_API_KEYS="k"),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def test_the_health_check_of_a_running_service_and_of_none(tmp_path: Path) -> None:
    with running_service(tmp_path) as url:
        alive = health(url)
        assert (alive.returncode, alive.stdout, alive.stderr) == (0, "", "")
        ready = health(url, "--ready")
        assert ready.returncode == 1, "there are no instances"
        assert ready.stderr.startswith("/readyz: 503 ")
    gone = health(url)
    assert gone.returncode == 1
    assert gone.stderr.startswith("/healthz: no answer from 127.0.0.1:")


# -- the package -------------------------------------------------------------------------------


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    """Installed into an environment of its own it has all that it needs: the command and the
    vocabularies. The dependencies are those of this environment."""
    pytest.importorskip("hatchling", reason="needs the build backend")
    import sysconfig
    import venv

    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    place = tmp_path / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps",
         "--no-" + "index", "--quiet", "--disable-pip-version-check", str(wheel)])  # fmt: skip
    [packages] = place.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    version = run([str(place / "bin" / "azure-openai-proxy"), "--version"], cwd=tmp_path)
    assert version.startswith("azure-openai-proxy ")
    shown = run(
        [str(python), "-I", "-c", "import proxy.tokens.vocabulary as v; print(v.__file__)"],
        cwd=tmp_path,
    )
    assert shown.startswith(str(packages))
    vocabularies = packages / "proxy" / "tokens" / "vocabularies"
    assert {path.name for path in vocabularies.glob("*.tiktoken")} == {
        "cl100k_base.tiktoken",
        "o200k_base.tiktoken",
    }


def run(command: list[str], cwd: Path = ROOT) -> str:
    environ = clean_environment()
    del environ["PYTHONPATH"]
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
