"""The capacity trials' arithmetic, and that their command works from end to end."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from capacity_trials.bars import Bars, Figures, figures, together
from capacity_trials.ideal import possible
from capacity_trials.resources import TPM, WAYS
from capacity_trials.table import Row, table
from capacity_trials.trials import TRIALS, capacity_per_minute

from proxy.planning.findings import Findings
from proxy.planning.resources import ResourceSpec, ResourceSpecs
from proxy.simulator.limiter import Limiter

SCRIPT = Path(__file__).parents[2] / "scripts" / "capacity.py"
GOOD = Figures(
    requests=1000,
    client_refusals=0,
    client_errors=0,
    calls=1000,
    calls_refused=1,
    counted_tokens=98.0,
    capacity_tokens=100.0,
    possible_tokens=99.0,
    reached_tokens=97.5,
    waits_s=(0.0, 1.0, 2.0, 3.0),
    refusal_waits_s=(0.0, 0.0, 0.0, 4.0),
    returned=20,
    returned_served=19,
)
BARS = Bars(
    most_client_refusals=0,
    most_upstream_refused=0.001,
    least_let_through=0.98,
    least_true_refusals=0.95,
    least_refused_at_once=0.75,
)


def test_figures_that_just_meet_their_bars_miss_nothing() -> None:
    assert list(BARS.missed(GOOD)) == []
    assert list(Bars().missed(GOOD)) == []


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"client_errors": 1}, "clients that got another error: 1, must be none"),
        ({"client_refusals": 2}, "clients refused: 2, must be at most 0"),
        ({"calls_refused": 2}, "upstream calls answered 429: 0.20%, must be at most 0.10%"),
        ({"reached_tokens": 96.03}, "let through: 97.00%, must be at least 98.00%"),
        (
            {"returned_served": 18},
            "came back when told to, served: 90.00%, must be at least 95.00%",
        ),
        (
            {"refusal_waits_s": (0.0, 0.0, 4.0, 4.0)},
            "refused at once: 50.00%, must be at least 75.00%",
        ),
    ],
)
def test_each_bar_can_be_missed(worse: dict[str, float], said: str) -> None:
    assert list(BARS.missed(replace(GOOD, **worse))) == [said]


def test_nobody_who_came_back_breaks_no_promise() -> None:
    assert list(BARS.missed(replace(GOOD, returned=0, returned_served=0))) == []


def test_runs_are_added_up_before_they_are_judged() -> None:
    both = together([GOOD, replace(GOOD, calls=3000, calls_refused=7, waits_s=(0.5,))])
    assert both.upstream_refused == pytest.approx(8 / 4000)
    assert both.let_through == pytest.approx(195 / 198)
    assert both.of_rates == pytest.approx(0.98)
    assert both.waits_s == (0.0, 0.5, 1.0, 2.0, 3.0)
    assert both.wait_s(1.0) == 3.0


def test_the_table_has_a_cell_for_each_figure() -> None:
    trial = TRIALS[0]
    worse = replace(GOOD, reached_tokens=94.05)
    head, rule, row = table([Row(trial, trial.stretches[0], [GOOD, worse])])
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "95.0% of 40" in row
    assert "| 96.7%, 95.0% |" in row
    assert "| met |" in row


def findings(specs: ResourceSpecs) -> Findings:
    """Of resources to which nothing has been sent yet."""
    return Findings(
        names=tuple(f"tpm-{tpm}" for tpm in TPM),
        max_tpm=TPM,
        limiters=tuple((Limiter(specs.default.limits(tpm, Random(tpm))),) for tpm in TPM),
        began_at=0.0,
        duration_s=300.0,
    )


@pytest.mark.parametrize("way", WAYS)
def test_an_ideal_sender_gets_what_the_rate_allows_of_every_way_of_counting(way: str) -> None:
    scenario, _ = TRIALS[0].scenario(1)
    specs = ResourceSpecs(default=ResourceSpec(**WAYS[way]))
    spec = scenario.traffic.spec.model_copy(update={"resources": specs})
    scenario = replace(scenario, traffic=replace(scenario.traffic, spec=spec))
    found = findings(specs)
    for _ in range(301):
        found.sample(0, 0)
    settled = sum(counts[300] - counts[180] for counts in possible(scenario, 1, found))
    assert settled == pytest.approx(2 * sum(TPM), rel=0.05)


def test_no_instance_makes_up_for_another_by_more_than_was_possible() -> None:
    found = findings(ResourceSpecs())
    found.sample(0, 0)
    for (limiter,) in found.limiters:
        limiter.admit(0.5, 80, 20)
    found.sample(0, 0)
    both = figures(found, [[0, 150], [0, 150], [0, 60]], 0, 1)
    assert (both.counted_tokens, both.reached_tokens, both.possible_tokens) == (300, 260, 360)


def test_the_offered_load_counts_what_the_dearest_count_charges() -> None:
    default = capacity_per_minute(ResourceSpecs())
    dear = ResourceSpecs(default=ResourceSpec(prompt_factor=2.0))
    cheap = ResourceSpecs(default=ResourceSpec(prompt_factor=0.5, charging="actual"))
    assert default == pytest.approx(sum(TPM) / 251, rel=0.02)
    assert capacity_per_minute(dear) < default
    assert capacity_per_minute(cheap) == default


def test_every_way_of_counting_is_valid_and_drawn_sooner_or_later() -> None:
    for differences in WAYS.values():
        ResourceSpec(**differences)
    ways = {way for seed in range(60) for way in TRIALS[0].scenario(seed)[1]}
    assert ways == set(WAYS)


def test_a_seed_gives_the_same_trial_again() -> None:
    first, again, other = (TRIALS[0].scenario(seed) for seed in (1, 1, 2))
    assert first[1] == again[1]
    assert list(first[0].traffic.asks(1)) == list(again[0].traffic.asks(1))
    assert first[1] != other[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_prints_the_table() -> None:
    done = run("--trials", "steady", "--seeds", "2", "--seconds", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].startswith("| steady | 0.9× |")
    assert "steady, seed 2: " in done.stderr
    assert re.search(r"steady, seed 2, all: \d+\.\d% let through\n", done.stderr)


def test_wrong_usage_is_said() -> None:
    assert run("--trials", "nothing").returncode == 2
    assert "must be at least 1, not 0" in run("--seeds", "0").stderr


def test_the_same_table_comes_from_real_sockets() -> None:
    done = run("--trials", "steady", "--seeds", "1", "--seconds", "1", "--sockets")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].startswith("| steady | 0.9× |")
