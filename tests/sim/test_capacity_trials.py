"""What the capacity promises, against resources that enforce their limits as Azure does.

Nothing here knows how a resource counts: its window, its charging, its estimates and the phase of
its minute are drawn by the seed. `scripts/capacity.py` runs the same trials and prints their
figures; a failure is run again with `--first-seed N --seeds 1 --trials NAME`.
"""

from __future__ import annotations

import pytest
from capacity_trials.bars import Figures, together
from capacity_trials.trials import TRIALS, Trial

from proxy.planning.rehearsal import rehearse

SEED = 2
NO_BUCKET = {"overload": 3}
"""Seeds of trials to which a bucket's burst could be a help."""
LONG_SEEDS = range(100, 110)


def run(trial: Trial, seed: int) -> list[Figures]:
    scenario, _ = trial.scenario(seed)
    return trial.figures(scenario, seed, rehearse(scenario, seed))


def missed(trial: Trial, found: list[Figures]) -> list[str]:
    return [
        f"{stretch.name}: {words}"
        for stretch, figures in zip(trial.stretches, found, strict=True)
        for words in stretch.bars.missed(figures)
    ]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_a_trial_meets_its_bars(trial: Trial) -> None:
    assert missed(trial, run(trial, NO_BUCKET.get(trial.name, SEED))) == []


@pytest.mark.long
@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_a_trial_meets_its_bars_over_many_seeds(trial: Trial) -> None:
    """All runs together: a single one depends on what its windows held at its ends."""
    runs = [run(trial, seed) for seed in LONG_SEEDS]
    assert missed(trial, [together(of_all) for of_all in zip(*runs, strict=True)]) == []
