"""`scripts/run` with a stand-in for Python, which notes what it is asked to do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# It answers what environment.sh asks of a Python; `log` lies beside it in the checkout.
STAND_IN = """\
#!/usr/bin/env bash
log={log}
case "$*" in
    *fcntl*) exec {python} "$@" ;;
    *print*) echo 3.11 ;;
    --version) echo "Python 3.11.0" ;;
    "-m venv"*)
        echo venv >>"$log"
        rm -rf "$4"
        mkdir -p "$4/bin" "$4/lib/python3.11/site-packages"
        cp "$0" "$4/bin/python"
        ;;
    "-m pip"*)
        echo "pip ${{!#}} $PIP_CONSTRAINT" >>"$log"
        if [[ -n ${{PIP_WAITS-}} ]]; then
            echo >"$log.began"
            read -r _ <"$log.go"
        fi
        exit "${{PIP_ENDS_WITH-0}}"
        ;;
    "-P -m proxy"*)
        shift 3
        printf '%s\\n' "$PWD" "$@"
        ;;
esac
"""


class Checkout:
    """A copy of what the scripts need, in a folder with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a checkout"
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.log.touch()
        self.began = folder / "log.began"
        self.go = folder / "log.go"
        os.mkfifo(self.began)
        os.mkfifo(self.go)
        shutil.copytree(
            ROOT / "scripts", self.folder / "scripts", ignore=lambda path, names: {"benchmarking"}
        )
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        shutil.copy(ROOT / "constraints.txt", self.folder)
        self.bin.mkdir()
        for tool in ("bash", "dirname", "env", "mkdir", "cp", "rm"):
            self.bin.joinpath(tool).symlink_to(shutil.which(tool) or tool)

    def add_python(self, text: str = STAND_IN) -> None:
        path = self.bin / "python3"
        path.write_text(text.format(log=self.log, python=sys.executable))
        path.chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.folder / "scripts" / "run", *arguments],
            cwd=self.bin.parent,
            env={"PATH": str(self.bin), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, list[str], list[str]]:
        """Exit status, lines of output, lines of messages."""
        process = self.start(*arguments, **environment)
        output, messages = process.communicate(timeout=30)
        return process.returncode, output.splitlines(), messages.splitlines()

    def wait_until_installing(self) -> None:
        """Of a start with PIP_WAITS: its pip has begun, and goes on when `finish` is called."""
        self.began.read_text()

    def finish(self) -> None:
        self.go.write_text("\n")

    def done(self) -> list[str]:
        """What was done since the last call."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    made.add_python()
    return made


def test_the_first_start_makes_everything_and_the_second_nothing(checkout: Checkout) -> None:
    status, output, _ = checkout.run("check", "two words")
    assert status == 0
    assert output == [str(checkout.bin.parent), "check", "two words"]
    assert checkout.done() == ["venv", "pip . constraints.txt"]
    assert checkout.run()[::2] == (0, [])
    assert checkout.done() == []


def test_the_demo_installs_its_extra_once(checkout: Checkout) -> None:
    checkout.run()
    checkout.done()
    assert checkout.run("demo")[0] == 0
    assert checkout.done() == ["pip .[demo] constraints.txt"]
    checkout.run("demo")
    checkout.run()
    assert checkout.done() == []


def test_a_changed_pin_is_installed(checkout: Checkout) -> None:
    checkout.run()
    checkout.done()
    (checkout.folder / "constraints.txt").write_text("trio==0.36.0\n")
    checkout.run()
    assert checkout.done() == ["pip . constraints.txt"]


def test_an_environment_that_was_moved_is_made_anew(checkout: Checkout) -> None:
    checkout.run()
    checkout.done()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("elsewhere"))
    checkout.run()
    assert checkout.done() == ["venv", "pip . constraints.txt"]


def test_an_environment_of_another_python_is_made_anew(checkout: Checkout) -> None:
    checkout.run()
    checkout.done()
    packages = checkout.folder / ".venv" / "lib" / "python3.11"
    packages.rename(packages.with_name("python3.9"))
    checkout.run()
    assert checkout.done() == ["venv", "pip . constraints.txt"]


def test_a_failed_installation_ends_in_a_sentence_and_is_tried_again(checkout: Checkout) -> None:
    status, output, messages = checkout.run(PIP_ENDS_WITH="1")
    assert (status, output) == (1, [])
    assert messages[-1].startswith("The packages could not be installed")
    checkout.done()
    assert checkout.run()[0] == 0
    assert checkout.done() == ["pip . constraints.txt"]


def test_what_is_installed_still_starts_after_an_extra_failed(checkout: Checkout) -> None:
    checkout.run()
    assert checkout.run("demo", PIP_ENDS_WITH="1")[0] == 1
    checkout.done()
    assert checkout.run()[0] == 0
    assert checkout.done() == []


def test_an_interrupted_installation_is_begun_anew(checkout: Checkout) -> None:
    process = checkout.start(PIP_WAITS="1")
    checkout.wait_until_installing()
    process.send_signal(signal.SIGTERM)
    checkout.finish()
    _, messages = process.communicate(timeout=30)
    assert process.returncode == 1
    assert messages.splitlines()[-1].startswith("Interrupted")
    checkout.done()
    assert checkout.run()[0] == 0
    assert checkout.done() == ["venv", "pip . constraints.txt"]


def test_two_starts_at_once_install_once(checkout: Checkout) -> None:
    first = checkout.start(PIP_WAITS="1")
    checkout.wait_until_installing()
    second = checkout.start()
    assert second.stderr is not None
    assert second.stderr.readline() == "Waiting for another start to finish its installation ...\n"
    checkout.finish()
    for process in (first, second):
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert checkout.done() == ["venv", "pip . constraints.txt"]


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        (None, "Python 3.11 or newer was not found"),
        ("#!/usr/bin/env bash\nexit 1\n", "Python 3.11 or newer was not found"),
        (
            '#!/usr/bin/env bash\n[[ "$*" != *ensurepip* ]]\n',
            "Python's venv module is missing from python3",
        ),
    ],
    ids=["none", "too old", "without venv"],
)
def test_a_missing_python_is_said_in_a_sentence(
    tmp_path: Path, python: str | None, sentence: str
) -> None:
    checkout = Checkout(tmp_path)
    if python is not None:
        checkout.add_python(text=python)
    status, output, messages = checkout.run()
    assert (status, output) == (1, [])
    assert messages[-1].startswith(sentence)


@pytest.mark.parametrize("script", ["scripts/run", "scripts/test", ".ci/run"])
def test_commands_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)
