"""The pages of the documentation, done step by step. `page.py` has the convention.

    UPDATE_DOCUMENTS=1 python -m pytest tests/documents/test_pages_tried.py

puts what is printed now in the place of answers that are not like it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TypeAlias

import pytest
from likeness import like, shown
from page import ROOT, Block, OddPage, steps
from trying import Reader, Running, WentWrong

TRIED = (
    "README.md",
    "docs/admin-api.md",
    "docs/configuration.md",
    "docs/getting-started.md",
    "docs/new_implementation.md",
    "docs/operations.md",
    "docs/troubleshooting.md",
)
UPDATING = os.environ.get("UPDATE_DOCUMENTS") == "1"
SIMULATE = (
    "-P", "-m", "proxy", "simulate", "--port", "0", "--api-key", "your-api-key",
    "--models", "gpt-4,gpt-4o,your-gpt-4o-deployment",
    "--first-token-ms", "0", "--per-token-ms", "0",
)  # fmt: skip

Printed: TypeAlias = tuple[Block, str]
"""An answer on a page, and what was printed."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the pages use curl")


@pytest.fixture(scope="module")
def resource_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulated resource, in the place of the reader's own one."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    running = Running([sys.executable, *SIMULATE], tmp_path_factory.mktemp("simulated"), environ)
    try:
        yield running.wait_for(r"(http://127\.0\.0\.1:\d+)")[1]
    finally:
        running.close()


@pytest.fixture(scope="module")
def ctrl_c() -> Iterator[None]:
    """What is started can be interrupted, even if these tests run in the background of a shell,
    which makes them and their children ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def trials(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    resource_url: str,
    ctrl_c: None,
) -> Iterator[dict[str, Future[list[Printed]]]]:
    """What the pages print that this run tests; two at a time, for they mostly start processes."""
    names = [
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "trials" in item.fixturenames
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {
            name: pool.submit(followed, name, tmp_path_factory.mktemp("page"), resource_url)
            for name in names
        }


@needs_curl
@pytest.mark.parametrize("name", TRIED)
def test_everything_on_the_page_works_as_it_says(
    name: str, trials: dict[str, Future[list[Printed]]]
) -> None:
    try:
        answers = trials[name].result()
    except WentWrong as error:
        pytest.fail(str(error), pytrace=False)
    different = [
        (answer, shown(printed, answer.text, answer.language))
        for answer, printed in answers
        if not like(answer.text, printed, answer.language)
    ]
    if UPDATING:
        path = ROOT / name
        path.write_text(_updated(path.read_text(encoding="utf-8"), different), encoding="utf-8")
    else:
        assert not different, "\n".join(
            f"{name}, line {answer.line}, says\n{answer.text}but it printed\n{printed}"
            for answer, printed in different
        )


def followed(name: str, folder: Path, resource_url: str) -> list[Printed]:
    """The page's answers, each with what was printed. Errors: `WentWrong`, with the place."""
    reader = Reader(folder, {"https://example.openai.azure.com": resource_url})
    answers: list[Printed] = []
    try:
        for step in steps((ROOT / name).read_text(encoding="utf-8")):
            try:
                printed = reader.follow(step)
            except WentWrong as error:
                raise WentWrong(f"{name}, line {step.block.line}: {error}") from None
            if step.answer is not None:
                answers.append((step.answer, printed))
    finally:
        reader.close()
    return answers


def _updated(page: str, different: list[Printed]) -> str:
    lines = page.split("\n")
    for answer, printed in reversed(different):
        length = answer.text.count("\n")
        lines[answer.line : answer.line + length] = printed.rstrip("\n").split("\n")
    return "\n".join(lines)


# -- that the convention itself can fail -------------------------------------------------------

ANSWER = '```bash\necho \'{"a": 1, "last_used": 5.5}\'\n```\n\n```json\n%s\n```\n'


@pytest.mark.parametrize(
    ("documented", "verdict"),
    [
        ('{"a": 1, "last_used": 99}', True),
        ('{"a": 2, "last_used": 5.5}', False),
        ('{"a": 1, "last_used": null}', False),
        ('{"a": 1}', False),
        ("no JSON", False),
    ],
)
def test_an_answer_that_is_another_is_found(tmp_path: Path, documented: str, verdict: bool) -> None:
    [step] = steps(ANSWER % documented)
    reader = Reader(tmp_path, {})
    assert step.answer is not None
    assert like(step.answer.text, reader.follow(step), "json") is verdict


@pytest.mark.parametrize(
    ("documented", "printed", "verdict"),
    [
        ("one\n...\nthree\n", "one\ntwo\nthree\n", True),
        ("one\n...\n", "one\n", True),
        ("one\n...\nthree\n", "one\ntwo\n", False),
        ("in 3.5 s", "in 7 s", True),
        ("backup 20260101T000000.000000Z", "backup 20261231T235959.999999Z", True),
        ("2 problems", "3 problems", False),
    ],
)
def test_a_text_that_is_another_is_found(documented: str, printed: str, verdict: bool) -> None:
    assert like(documented, printed, "text") is verdict


def test_a_step_that_fails_is_found(tmp_path: Path) -> None:
    [step] = steps("```bash\necho why; exit 3\n```\n")
    with pytest.raises(WentWrong, match="exit status 3:\nwhy"):
        Reader(tmp_path, {}).follow(step)
    [step] = steps("<!-- exit: 3 -->\n```bash\nexit 3\n```\n")
    assert Reader(tmp_path / "other", {}).follow(step) == ""


@needs_curl
def test_a_refusal_that_no_answer_shows_is_found(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # knows no method
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = f"```bash\ncurl http://127.0.0.1:{server.server_port}/\n```\n"
        with pytest.raises(WentWrong, match="exit status 22"):
            Reader(tmp_path / "unseen", {}).follow(steps(command)[0])
        [step] = steps(f"{command}```text\n...\n```\n")
        assert "501" in Reader(tmp_path / "shown", {}).follow(step)
        server.shutdown()


@pytest.mark.parametrize(
    "page",
    [
        "```bash\n",
        "```json\n{}\n```\n",
        "<!-- skip -->\n```bash\n```\n",
        "  ```bash\n  ```\n",
        "<!-- not run: because -->\n```bash\n```\n```text\n```\n",
    ],
)
def test_a_page_that_breaks_the_convention_is_found(page: str) -> None:
    with pytest.raises(OddPage):
        steps(page)
