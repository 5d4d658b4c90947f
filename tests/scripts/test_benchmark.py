"""The benchmark's arithmetic and bytes, and that the command works from end to end."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the load is in asyncio
import json
import math
import os
import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarking import (
    cli,
    leftovers,
    load,
    meter,
    peers,
    plot,
    report,
    results,
    running,
    scenarios,
    wire,
)
from benchmarking.load import Client, Tally

from actors.clock import WallClock, wall_now
from actors.models import InstanceConfig
from actors.policy.standing import Standing
from actors.store import StateStore
from proxy.bound.journal import JournalFile, journal_path
from proxy.tokens.bounds import bounds

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


@pytest.mark.parametrize(
    ("cpu_us", "failures", "status", "strict_status"),
    [(150, [], 0, 0), (250, [], 0, 1), (math.nan, [], 0, 0), (150, ["it ended"], 1, 1)],
)
def test_a_missed_bar_is_a_failure_for_who_is_strict(
    cpu_us: float, failures: list[str], status: int, strict_status: int
) -> None:
    made = results.Results(failures=failures)
    made.add("requests", "relay", {"cpu_us": 50})
    made.add("requests", "service", {"cpu_us": cpu_us})
    assert cli.exit_status(made, strict=False) == status
    assert cli.exit_status(made, strict=True) == strict_status


def test_every_scenario_has_a_title_and_columns() -> None:
    assert list(cli.SCENARIOS) == list(report.TITLES) == list(report.COLUMNS)


def test_each_growth_is_a_ratio_of_the_later_figure_to_the_one_before() -> None:
    made = results.Results()
    made.add("aged", "service", {"cpu_fresh_us": 100, "cpu_aged_us": 140, "cpu_unsaved_us": 80})
    measured = {bar.title: bar.measured(made) for bar in results.BARS}
    assert measured["CPU per request after an hour of traffic, against a fresh start"] == 1.4
    assert measured["CPU per request with persistence, against without"] == 1.25


def test_the_service_takes_back_what_an_hour_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "IDS", 300)
    site = peers.Site(tmp_path, 1, 2, peers.Setting(instances=3, aged=True))
    command = peers.service().command
    assert command is not None
    state_file = Path(command(site).environment["INSTANCE_STATE_FILE"])
    states, warning = StateStore(state_file).load()
    assert (len(states), warning) == (3, None)
    config = InstanceConfig.model_validate(
        json.loads((tmp_path / "instance_configs.json").read_text())["instance-001"]
    )
    standing, now = Standing(config, random.Random(1)), wall_now()
    standing.restore(states["instance-001"], now, WallClock(0.0))
    assert standing.account.requests.total(now) == pytest.approx(600, abs=50)
    quota = standing.capacity.quotas[wire.MODEL]
    assert quota.limit.learned(now) == 100_000_000_000
    assert quota.others.value(now) > 0
    journal = JournalFile(journal_path(state_file))
    owners = dict(journal.load())
    assert (len(owners), journal.damaged) == (300, 0)
    assert owners[f"responses/{leftovers.response_id(4)}"] == "instance-001"


def test_a_prompt_of_the_counted_model_can_only_be_counted(tmp_path: Path) -> None:
    """Its input limit lies between the bounds of its tokens."""
    site = peers.Site(tmp_path, 1, 2, peers.Setting(instances=1, also=wire.COUNTED_MODEL))
    config = peers._instances(site)[wire.COUNTED_MODEL]
    body = wire.chat_body(1_000_000, model=wire.COUNTED_MODEL)
    found = bounds("chat", json.loads(body), len(body), wire.COUNTED_MODEL)
    limit = config["max_input_tokens"]
    assert isinstance(limit, int)
    assert found.low <= limit < found.high


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


@pytest.mark.parametrize("answers_come", [True, False])
def test_a_stall_at_the_end_hides_no_request(
    answers_come: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "SETTLE_LIMIT_S", 5.0 if answers_come else 0.1)

    async def measure() -> Tally:
        stall_ends = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with closing(writer):
                await reader.readuntil(b"request")
                await stall_ends.wait()
                writer.write(wire.plain_answer())
                await reader.read()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            open_loop = load.OpenLoop(server.sockets[0].getsockname()[1], b"request", per_s=100)
            await open_loop.start()
            await asyncio.sleep(0.1)
            if answers_come:
                asyncio.get_running_loop().call_later(0.1, stall_ends.set)
            await open_loop.settle()
            open_loop.stop()
            stall_ends.set()
            while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - the servers' end tells nobody
                await asyncio.sleep(0.001)
        return open_loop.tally

    tally = load.run_load(measure, precise=True)
    asked = len(tally.latencies_s)
    assert asked > 0
    assert max(tally.latencies_s) >= 0.1
    assert (tally.answers, tally.errors) == ((asked, 0) if answers_come else (0, asked))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--repeats=0"], "argument --repeats: invalid number value: '0'"),
        (["--repeats=-1"], "argument --repeats: invalid number value: '-1'"),
        (["--only=nothing"], "argument --only: invalid choice: 'nothing'"),
        (["--peers="], "Not here: ''; here are direct, service, relay, outline, passthrough"),
        (["--peers=relay,other"], "Not here: 'other'; here are direct, service"),
        (["--peers=direct", "--only=start"], "There is nothing to measure"),
        (["--output=/dev/null"], "Nothing can be written to /dev/null: File exists."),
        (["--output=/proc"], "Nothing can be written to /proc: "),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit) as refused:
        cli.main()
    assert said in f"{refused.value}{capsys.readouterr().err}"


def test_a_process_that_a_peer_starts_late_counts_as_its_own() -> None:
    peer = running.Running(0, os.getpid(), 0.0)
    busy = "import sys; sum(range(5_000_000)); print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alone = meter.cpu_s(os.getpid())
        assert peer.cpu_s() >= alone + meter.cpu_s(child.pid)
        child.communicate()


def test_a_peer_that_can_not_be_started_has_failed(tmp_path: Path) -> None:
    peer = peers.service(str(tmp_path / "no-such-program"))
    said = pytest.raises(running.PeerFailed, match=r"service can't be started: .*no-such-program")
    with said, running.running(peer, 1, {0}):
        pass


@pytest.mark.long
@pytest.mark.parametrize(
    ("peer", "measured"),
    [
        ("relay", [("requests", "cpu_us"), ("fast_streams", "cpu_us")]),
        ("outline", [("requests", "cpu_us"), ("latency", "p50_ms")]),
        ("service", [("aged", "cpu_aged_us"), ("aged", "cpu_unsaved_us")]),
        ("service", [("counted_prompts", "canary_p99_beside_1000_kb_ms")]),
    ],
)
def test_the_command_measures_and_writes(
    tmp_path: Path, peer: str, measured: list[tuple[str, str]]
) -> None:
    only = [f"--only={scenario}" for scenario in dict(measured)]
    what = ["--quick", f"--peers=direct,{peer}", *only, f"--output={tmp_path}"]
    subprocess.run(
        [sys.executable, SCRIPTS / "benchmark.py", *what], check=True, stdout=subprocess.DEVNULL
    )
    document = json.loads((tmp_path / "benchmark.json").read_text())
    assert document["failures"] == []
    for scenario, figure in measured:
        sample = document["samples"][scenario][peer][-1]
        assert sample["errors"] == 0
        assert sample[figure] > 0
