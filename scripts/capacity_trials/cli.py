"""The command: arguments, the order of things, the table."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from capacity_trials.sockets import rehearse_over_sockets
from capacity_trials.table import Row, table
from capacity_trials.trials import TRIALS
from proxy.planning.progress import Progress
from proxy.planning.rehearsal import rehearse

if TYPE_CHECKING:
    from capacity_trials.bars import Figures
    from capacity_trials.trials import Trial


def main(argv: list[str] | None = None) -> int:
    """Prints the table; 0 if every bar is met, 1 if not, 2 for wrong usage."""
    options = _arguments(argv)
    rows: list[Row] = []
    for trial in TRIALS:
        if options.trials and trial.name not in options.trials:
            continue
        rows += _judged(
            trial if options.seconds is None else trial.lasting(options.seconds), options
        )
    print("\n".join(table(rows)))
    return 1 if any(row.missed for row in rows) else 0


def _judged(trial: Trial, options: argparse.Namespace) -> list[Row]:
    """A row for each stretch. Bars hold for all runs together; what each let through, and what it
    has missed, is told."""
    runs = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        found = _run(trial, seed, sockets=options.sockets)
        runs.append(found)
        for stretch, figures in zip(trial.stretches, found, strict=False):
            told = [f"{figures.let_through:.1%} let through", *stretch.bars.missed(figures)]
            print(f"{trial.name}, seed {seed}, {stretch.name}: {'; '.join(told)}", file=sys.stderr)
    of_stretches = zip(*runs, strict=True)
    return [
        Row(trial, stretch, of_all)
        for stretch, of_all in zip(trial.stretches, of_stretches, strict=False)
    ]


def _run(trial: Trial, seed: int, *, sockets: bool) -> list[Figures]:
    scenario, ways = trial.scenario(seed)
    label = f"{trial.name}, seed {seed}"
    print(f"{label}: {'; '.join(ways)}", file=sys.stderr)
    if sockets:
        return trial.figures(scenario, seed, rehearse_over_sockets(scenario, seed))
    progress = Progress(sys.stderr, label, trial.duration_s)
    try:
        return trial.figures(scenario, seed, rehearse(scenario, seed, progress.at))
    finally:
        progress.close()


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Runs the trials of docs/capacity.md and prints their figures.",
        epilog="Virtual time, unless --sockets: then everything takes as long as it says.",
    )
    parser.add_argument(
        "--trials",
        action="append",
        choices=[trial.name for trial in TRIALS],
        help="only this one; may be given more than once",
    )
    parser.add_argument("--seeds", type=_positive, default=3, help="runs of each trial")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seconds", type=_positive, help="of each run, not the trial's own")
    parser.add_argument(
        "--sockets",
        action="store_true",
        help="the service as a process, resources and clients over HTTP, in real time",
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
