"""`simulate` from the command line, and the resources of the demo."""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

import proxy
from proxy.simulator.command import add_arguments, run
from proxy.simulator.demo import demo_resources

PROGRAM = """
import argparse, sys
from proxy.simulator.command import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(given)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_what_it_prints_until_it_is_told_to_stop(stop: signal.Signals) -> None:
    options = ["--port", "0", "--resources", "2", "--models", "gpt-4o", "--api-key", "k"]
    options += ["--tpm", "5000", "--first-token-ms", "0", "--per-token-ms", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *options],
        cwd=Path(proxy.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        shown = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        urls = re.findall(r"http://127\.0\.0\.1:\d+", shown)
        assert len(urls) == 2
        assert "gpt-4o: 5000 tokens and 30 requests per minute" in shown
        ask = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]})
        for url in urls:
            headers = {"api-key": "k", "content-type": "application/json"}
            call = Request(f"{url}/openai/v1/chat/completions", ask.encode(), headers)
            with urlopen(call, timeout=10) as answer:
                assert json.load(answer)["choices"]
        process.send_signal(stop)
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""


def test_a_port_in_use_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(arguments("--port", str(port))) == 1
    assert capsys.readouterr().err == (
        f"simulate: can't listen on 127.0.0.1:{port}: Address already in use.\n"
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--resources", "0"], "--resources"),
        (["--resources", "101"], "--resources"),
        (["--port", "65535", "--resources", "2"], "--port"),
        (["--port", "-1"], "--port"),
        (["--tpm", "0"], "--tpm"),
        (["--rpm", "-1"], "--rpm"),
        (["--per-token-ms", "-1"], "--per-token-ms"),
        (["--models", " , "], "--models"),
    ],
)
def test_options_that_make_no_sense(
    given: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(*given)) == 1
    assert named in capsys.readouterr().err


def test_the_resources_of_the_demo_differ_in_everything_but_their_models() -> None:
    resources = demo_resources()
    assert len({sim.name for sim in resources}) == 3
    assert len({sim.region for sim in resources}) == 3
    by_resource = [list(sim.deployments.values()) for sim in resources]
    assert [deployments[0].limits.tpm for deployments in by_resource] == [60_000, 30_000, 10_000]
    assert len({deployments[0].latency for deployments in by_resource}) == 3
    assert len({tuple(sim.deployments) for sim in resources}) == 1
