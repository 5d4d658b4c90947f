"""The benchmark's arithmetic and bytes, and that the command works from end to end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarking import peers, plot, report, results, scenarios, wire
from benchmarking.load import Client, Tally

SCRIPTS = Path(__file__).parents[2] / "scripts"


def made_up_results() -> results.Results:
    """Three repeats on a machine that is half as fast in the second one."""
    made = results.Results()
    for slowness in (1, 2, 1.1):
        made.add("requests", "relay", {"cpu_us": 50 * slowness, "requests_per_s": 18e3 / slowness})
        made.add("requests", "service", {"cpu_us": 150 * slowness, "requests_per_s": 6e3})
        made.add("latency", "direct", {"p50_ms": 0.2 * slowness, "p99_ms": 0.5})
        made.add("latency", "service", {"p50_ms": 0.2 * slowness + 0.4, "p99_ms": 3.5})
    return made


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.99, 10), (0.9, 9), (0.0, 1)])
def test_percentiles_are_values_that_occurred(share: float, expected: float) -> None:
    assert scenarios.percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == expected


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(scenarios.percentile([], 0.5))


def test_ratios_are_taken_within_a_repeat() -> None:
    made = made_up_results()
    assert results.ratio(made, "requests", "cpu_us", "service", "relay") == pytest.approx(3)
    assert results.added(made, "p50_ms", "service") == pytest.approx(0.4)


def test_a_failed_repeat_is_left_out() -> None:
    made = made_up_results()
    made.samples["requests"]["service"][1] = {}
    assert results.ratio(made, "requests", "cpu_us", "service", "relay") == pytest.approx(3)
    assert math.isnan(results.ratio(made, "requests", "cpu_us", "service", "nginx"))


@pytest.mark.parametrize(
    ("more_is_better", "value", "verdict"),
    [
        (False, 2.5, "aim reached"),
        (False, 4.0, "pass"),
        (False, 4.1, "MISS"),
        (True, 4.0, "aim reached"),
        (True, 2.5, "pass"),
        (True, 2.4, "MISS"),
        (False, math.nan, "not measured"),
    ],
)
def test_a_bar_is_held_or_missed(more_is_better: bool, value: float, verdict: str) -> None:
    limit, aim = (2.5, 4.0) if more_is_better else (4.0, 2.5)
    bar = results.Bar("", "×", limit, aim, lambda _: value, more_is_better)
    assert bar.verdict(value) == verdict


def test_the_report_holds_figures_verdicts_and_doubts() -> None:
    made = made_up_results()
    made.samples["requests"]["service"][0]["errors"] = 7.0
    made.failures.append("latency, nginx: it ended")
    listed = [peers.DIRECT, peers.service(), peers.RELAY]
    text = report.markdown(made, listed, scenarios.FULL, {"processor": "made up"})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [
        "CPU per request, all features, against the bare relay",
        "≤ 4 ×",
        "2.5 ×",
        "3.00 ×",
        "pass",
    ] in rows
    assert ["added latency at 100 requests/s, p99", "≤ 2 ms", "1 ms", "3.00 ms", "MISS"] in rows
    assert "- requests, service: 7 requests went wrong" in text
    assert "- latency, nginx: it ended" in text
    document = json.loads(report.as_json(made, scenarios.FULL, {}))
    assert document["bars"][0]["verdict"] == "pass"
    assert document["samples"]["requests"]["relay"][0]["cpu_us"] == 50


def test_the_plot_is_one_picture_with_a_bar_per_peer() -> None:
    picture = ElementTree.fromstring(
        plot.svg(made_up_results(), [peers.DIRECT, peers.service(), peers.RELAY])
    )
    bars = [e.get("class") for e in picture.iter() if "bar" in (e.get("class") or "")]
    assert bars.count("bar ours") == 4
    assert bars.count("bar") == 4


@pytest.mark.parametrize("size_bytes", [400, 1000, 100_000])
def test_requests_have_the_size_they_shall_have(size_bytes: int) -> None:
    body = wire.chat_body(size_bytes)
    assert len(body) == size_bytes
    assert json.loads(body)["model"] == wire.MODEL
    assert wire.stream_shape(body) is None


def test_the_shape_of_a_stream_survives_another_rendering() -> None:
    shape = wire.StreamShape(events=50, pause_s=0.02)
    fields = json.loads(wire.chat_body(400, shape))
    assert fields["stream"] is True
    assert wire.stream_shape(json.dumps(fields, indent=1).encode()) == shape


class Sent:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def stream_bytes(events: int) -> bytes:
    return b"".join([wire.stream_head(), *wire.stream_events(events), wire.STREAM_END])


@pytest.mark.parametrize("piece_bytes", [1, 7, 100, 1_000_000])
@pytest.mark.parametrize(
    ("answer", "events"), [(wire.plain_answer(), 0), (stream_bytes(10), 10)], ids=["plain", "sse"]
)
def test_answers_are_read_however_they_are_cut(
    answer: bytes, events: int, piece_bytes: int
) -> None:
    tally, done = Tally(), []
    client = Client(0, tally, done.append)
    client.connection_made(Sent())  # type: ignore[arg-type]
    for number in (1, 2):
        client.ask(b"request", 0.0)
        for start in range(0, len(answer), piece_bytes):
            assert len(done) == number - 1
            client.data_received(answer[start : start + piece_bytes])
        assert len(done) == number
    assert (tally.answers, tally.errors, tally.events) == (2, 0, 2 * events)


def test_an_answer_that_is_no_success_is_an_error() -> None:
    tally = Tally()
    client = Client(0, tally, lambda _: None)
    client.connection_made(Sent())  # type: ignore[arg-type]
    client.ask(b"request", 0.0)
    client.data_received(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}")
    assert (tally.answers, tally.errors) == (0, 1)


@pytest.mark.long
def test_the_command_measures_and_writes(tmp_path: Path) -> None:
    what = ["--quick", "--peers", "direct,relay", "--only", "requests", "--only", "fast_streams"]
    subprocess.run(
        [sys.executable, SCRIPTS / "benchmark.py", *what, "--output", tmp_path],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    document = json.loads((tmp_path / "benchmark.json").read_text())
    assert document["failures"] == []
    for scenario in ("requests", "fast_streams"):
        (sample,) = document["samples"][scenario]["relay"]
        assert sample["errors"] == 0
        assert sample["cpu_us"] > 0
