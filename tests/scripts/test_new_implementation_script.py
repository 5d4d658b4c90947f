"""`python tests/test_new_implementation.py`: the verdict on the suite, and on a running service."""

from __future__ import annotations

import http.server
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import service_check
from service_process import ADMIN_KEY, ROOT, clean_environment, running_service

SCRIPT = ROOT / "tests" / "test_new_implementation.py"
LIMIT_S = 120.0
OURS = {"name": "mine", "api_key": "key-of-mine-0123456789", "api_base": "https://mine.example"}


def run(
    *words: str, python: tuple[str, ...] = (), script: Path = SCRIPT, **environment: str
) -> tuple[int, list[str]]:
    """Exit status and lines of output; the admin key is not in them."""
    ended = subprocess.run(
        [sys.executable, *python, script, *words],
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ADMIN_KEY not in ended.stdout
    return ended.returncode, ended.stdout.splitlines()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A running service with one instance: its URL and its configuration file."""
    folder = tmp_path_factory.mktemp("service")
    file = folder / "instance_configs.json"
    file.write_text(json.dumps({"mine": OURS}))
    with running_service(folder) as url:
        yield url, file


def shown(url: str) -> dict[str, object]:
    headers = {"X-Admin-API-Key": ADMIN_KEY}
    answer = httpx.get(f"{url}/admin/instances", headers=headers, trust_env=False)
    instances: dict[str, object] = answer.json()["instances"]
    return instances


# -- the suite ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "verdict"),
    [
        ("assert True", 0, "PASSED: every test that was run, in "),
        ("assert False", 1, "FAILED: the lines above say what, in "),
        ("raise KeyboardInterrupt", 1, "FAILED: it was interrupted, in "),
    ],
)
def test_the_suite_ends_in_a_verdict(tmp_path: Path, body: str, status: int, verdict: str) -> None:
    (tmp_path / "test_something.py").write_text(f"def test_it():\n    {body}\n")
    ended, lines = run(str(tmp_path))
    assert ended == status
    assert lines[-1].startswith(verdict)


def test_a_suite_without_a_test_has_not_passed(tmp_path: Path) -> None:
    status, lines = run(str(tmp_path))
    assert (status, lines[-1][:32]) == (1, "FAILED: there was no test to run")


def test_it_runs_the_tests_of_the_repository_from_any_folder() -> None:
    status, lines = run("--collect-only", "-q", "tests/policy", "tests/test_new_implementation.py")
    assert status == 0
    assert "tests/test_new_implementation.py::test_every_documented_endpoint_is_there" in lines
    assert any(line.startswith("tests/policy/") for line in lines)


def test_without_an_environment_it_says_how_to_get_one(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    (checkout / "tests").mkdir()
    copied = shutil.copy(SCRIPT, checkout / "tests")
    status, lines = run(python=("-S", "-E"), script=Path(copied))
    assert status == 1
    assert lines[-1].startswith("FAILED: the environment for tests is missing")


# -- a running service -------------------------------------------------------------------------


def test_a_running_service_is_checked_and_left_as_it_was(site: tuple[str, Path]) -> None:
    url, file = site
    before = shown(url)
    status, lines = run("--url", url, "--admin-key", ADMIN_KEY)
    assert status == 0, lines
    assert {line[:6] for line in lines[:-1]} == {"PASS  "}
    assert len(lines) == len(service_check.CHECKS) + 2
    assert lines[-1].startswith(f"PASSED: {len(service_check.CHECKS) + 1} checks of {url}")
    assert shown(url) == before
    assert list(json.loads(file.read_bytes())) == ["mine"]


def test_what_a_failed_check_made_is_deleted(
    site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = site

    async def fails(site: service_check.Site) -> None:
        async with site.instance("left"):
            service_check.require(False, "as it should")

    async def breaks(site: service_check.Site) -> None:
        await site.ask("POST", "/admin/instances", site.config("behind"), expect=201)
        await site.ask("GET", "/nowhere")

    monkeypatch.setattr(service_check, "CHECKS", (fails, breaks, service_check.lives))
    before = shown(url)
    assert service_check.check(url, ADMIN_KEY) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "FAIL  fails: as it should",
        "FAIL  breaks: GET /nowhere answered 404 instead of 200",
        "PASS  lives",
        "PASS  leaves everything as it was",
    ]
    assert lines[4].startswith(f"FAILED: 2 of 4 checks of {url}")
    assert shown(url) == before


def test_a_change_that_stays_is_a_failure(
    site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def meddles(site: service_check.Site) -> None:
        await site.ask("PUT", "/admin/instances/mine/config", {"weight": 42})

    monkeypatch.setattr(service_check, "CHECKS", (meddles,))
    assert service_check.check(site[0], ADMIN_KEY) == 1
    assert "FAIL  leaves everything as it was: changed: mine" in capsys.readouterr().out


class Halting(http.server.BaseHTTPRequestHandler):
    """Passes everything on to `site`, and halts before it tells that an instance was made."""

    site: str
    reached: threading.Event
    go_on: threading.Event

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = httpx.request(
            self.command,
            self.site + self.path,
            content=body,
            headers=dict(self.headers),
            trust_env=False,
        )
        if self.command == "POST" and told.status_code == 201:
            self.reached.set()
            self.go_on.wait(LIMIT_S)
        self.send_response(told.status_code)
        self.send_header("Content-Type", told.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(told.content)))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # who was interrupted has gone
            self.wfile.write(told.content)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *arguments: object) -> None:
        """Nothing: a test reads the output."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Programs that are started can be interrupted, even if the tests run in the background: shells
    have that ignored there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_check_leaves_nothing_behind(site: tuple[str, Path]) -> None:
    url, _ = site
    before = shown(url)
    reached, go_on = threading.Event(), threading.Event()
    between = type("Between", (Halting,), {"site": url, "reached": reached, "go_on": go_on})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), between) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with subprocess.Popen(
            [sys.executable, SCRIPT, "--url", f"http://127.0.0.1:{server.server_port}"],
            env=clean_environment(ADMIN_API_KEY=ADMIN_KEY),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert reached.wait(LIMIT_S)
            process.send_signal(signal.SIGINT)
            go_on.set()
            output, _ = process.communicate(timeout=LIMIT_S)
        server.shutdown()
        thread.join()
    assert process.returncode == 130
    assert output.splitlines()[-1].startswith("FAILED: interrupted")
    assert shown(url) == before


def test_what_is_no_such_service_fails_with_a_reason(site: tuple[str, Path]) -> None:
    url, _ = site
    status, lines = run("--url", url, "--admin-key", "wrong")
    assert status == 1
    assert lines == [
        f"FAILED: {url} can't be checked: GET /admin/instances answered 401 instead of 200"
    ]
    assert run("--url", url)[1][0].startswith("FAILED: the admin key is missing")
    assert run("--url", url, "-k", "x")[0] == 2


class Pretender(http.server.BaseHTTPRequestHandler):
    """Says of everything that it was a success."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"status": "success", "count": 0, "instances": {}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *arguments: object) -> None:
        """Nothing: a test reads the output."""


def test_a_service_that_does_not_do_what_it_says_fails_every_check() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pretender) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        status, lines = run("--url", url, ADMIN_API_KEY=ADMIN_KEY)
        server.shutdown()
        thread.join()
    assert status == 1
    passed = [line for line in lines if line.startswith("PASS")]
    assert passed == ["PASS  lives", "PASS  leaves everything as it was"]
    assert lines[-1].startswith(f"FAILED: {len(service_check.CHECKS) - 1} of ")
    closed_status, closed = run("--url", url, ADMIN_API_KEY=ADMIN_KEY)
    assert closed_status == 1
    assert "can't be checked: ConnectError" in closed[0]
