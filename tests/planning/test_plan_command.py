"""`python -m proxy plan`: what it prints, what it draws, and what it says of wrong input."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from planned import CHAT, instances, spec, written

from proxy.cli import main
from proxy.planning.progress import Progress


@pytest.fixture(autouse=True)
def _away_from_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MAX_QUEUE_WAIT_SECONDS", "ROUTING_STRATEGY", "HOST"):
        monkeypatch.delenv(name, raising=False)


def plan(folder: Path, config: Any, traffic: Any, *more: str) -> int:
    config_file = written(folder / "small.json", config)
    traffic_file = written(folder / "traffic.json", traffic)
    return main(["plan", "--config", str(config_file), "--traffic", str(traffic_file), *more])


def test_it_prints_instances_and_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, instances(east=60_000, west=30_000), spec()) == 0
    printed = capsys.readouterr()
    assert "INSTANCE" in printed.out
    for word in ("east", "west", "together", "90 000", "requests", "served", "wait, p99"):
        assert word in printed.out
    assert printed.err == ""


def test_json_has_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(tmp_path, instances(east=60_000, west=30_000), spec(), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (run,) = document["runs"]
    clients = run["clients"]
    assert document["seed"] == 1
    assert clients["requests"] == clients["served"] > 60
    assert [each["name"] for each in run["instances"]] == ["east", "west"]
    assert sum(each["calls"] for each in run["instances"]) == clients["requests"]


def test_two_configurations_are_put_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = written(tmp_path / "large.json", instances(east=600_000))
    picture = tmp_path / "plan.svg"
    traffic = spec(duration_s=120, requests_per_minute=150)
    arguments = ("--compare", str(other), "--plot", str(picture))
    assert plan(tmp_path, instances(east=10_000), traffic, *arguments) == 0
    rows = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert rows["CLIENTS"].split() == ["CLIENTS", "small", "large"]
    assert rows["refused (429)"].endswith("0 (0.0 %)")
    assert "100.0 %" in rows["served"]
    drawn = "".join(ElementTree.parse(picture).getroot().itertext())
    for label in ("demand", "served (small)", "served (large)", "waiting (small)"):
        assert label in drawn


def test_the_settings_of_the_service_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_QUEUE_WAIT_SECONDS", "0")
    traffic = spec(duration_s=120, requests_per_minute=150)
    assert plan(tmp_path, instances(east=10_000), traffic, "--json") == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["clients"]["refused"] > 0
    assert run["clients"]["wait_s"]["longest"] == 0


def test_a_trace_can_be_given_instead_of_a_spec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"model": "gpt-4o", "input_tokens": 100, "output_tokens": 20}
    text = "\n".join(json.dumps({"time": 1.7e9 + at, **line}) for at in range(20))
    trace = written(tmp_path / "recorded.jsonl", text)
    config = written(tmp_path / "config.json", instances(east=60_000))
    assert main(["plan", "--config", str(config), "--traffic", str(trace), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["clients"]["served"] == 20
    assert run["instances"][0]["served_tokens"] == 20 * 120


# -- wrong input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "traffic", "said"),
    [
        ({}, spec(), "has no enabled instance; add one or enable one"),
        (
            {"east": {**instances(east=1)["east"], "max_tpm": 0}},
            spec(),
            "east.max_tpm: must be greater than or equal to 1, not 0",
        ),
        (
            instances(east=1),
            spec(resources={"instances": {"west": {}}}),
            "there is no instance named 'west'",
        ),
        (instances(east=1), spec(duration_s=-5), "duration_s: must be greater than 0, not -5"),
    ],
)
def test_wrong_input_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: Any, traffic: Any, said: str
) -> None:
    assert plan(tmp_path, config, traffic) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


def test_files_that_are_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traffic = written(tmp_path / "traffic.json", spec())
    assert main(["plan", "--config", "nowhere.json", "--traffic", str(traffic)]) == 1
    assert "nowhere.json" in capsys.readouterr().err
    config = written(tmp_path / "config.json", instances(east=1))
    assert main(["plan", "--config", str(config), "--traffic", "nothing.json"]) == 1
    assert "nothing.json" in capsys.readouterr().err


def test_a_plot_that_can_t_be_written_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = ("--plot", str(tmp_path / "no" / "plan.svg"))
    assert plan(tmp_path, instances(east=1000), spec(), *plot) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [("plan.png", "must end in .svg"), ("plan", "must end in .svg"), ("there.svg", "directory")],
)
def test_what_can_t_be_drawn_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    (tmp_path / "there.svg").mkdir()
    plot = ("--plot", str(tmp_path / name))
    assert plan(tmp_path, instances(east=1000), spec(), *plot) == 1
    printed = capsys.readouterr()
    assert name in printed.err
    assert said in printed.err
    assert printed.out == ""


def test_a_configuration_is_not_compared_with_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ("--compare", str(tmp_path / "." / "small.json"))
    assert plan(tmp_path, instances(east=1000), spec(), *same) == 1
    printed = capsys.readouterr()
    assert "--compare" in printed.err
    assert printed.out == ""


def test_a_model_without_an_instance_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traffic = spec(requests=[CHAT, {**CHAT, "model": "gpt-9"}])
    assert plan(tmp_path, instances(east=60_000), traffic) == 0
    printed = capsys.readouterr()
    assert "no enabled instance serves 'gpt-9'" in printed.err
    assert "answered 404" in printed.out


# -- progress ----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_grows_on_a_terminal_and_goes_away() -> None:
    terminal = Terminal()
    progress = Progress(terminal, "plan", 200)
    for second in range(201):
        progress.at(second)
    progress.close()
    drawn = terminal.getvalue()
    assert drawn.count("\r") == 102
    assert "[####################                    ]  50 %" in drawn
    assert "100 %" in drawn
    assert drawn.endswith("\r\x1b[K")


def test_nothing_is_drawn_where_nobody_looks() -> None:
    stream = io.StringIO()
    progress = Progress(stream, "plan", 10)
    progress.at(10)
    progress.close()
    assert stream.getvalue() == ""
