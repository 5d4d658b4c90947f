"""`python -m proxy plan`: what a configuration would do with a traffic."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.store import ConfigStore
from proxy.planning import report
from proxy.planning.plot import Run, plot
from proxy.planning.progress import Progress
from proxy.planning.rehearsal import Scenario, rehearse
from proxy.planning.traffic import TrafficError, read_traffic
from proxy.settings import load_settings

if TYPE_CHECKING:
    import argparse

    from actors.models import InstanceConfig
    from proxy.planning.findings import Findings
    from proxy.planning.traffic import Traffic
    from proxy.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to its parser."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", required=True, help="the instances to plan with"
    )
    parser.add_argument(
        "--traffic",
        type=Path,
        metavar="SPEC",
        required=True,
        help="what is asked when: a JSON spec, or a recorded trace (.jsonl); docs/capacity.md",
    )
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="other instances, with the same traffic"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="draw demand, served tokens and queue (SVG)"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, other chances")
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")


def run(args: argparse.Namespace) -> int:
    """Prints the figures and returns 0; 1, after a line for each problem, if something is wrong.

    Errors: `SettingsError`, `OSError` for a file that can't be read or written.
    """
    settings = load_settings(os.environ)
    try:
        _expect_sense(args)
        traffic = read_traffic(args.traffic)
        chosen = [args.config] if args.compare is None else [args.config, args.compare]
        configs = {path: _read_configs(path) for path in chosen}
        _check_names(args.traffic, traffic, configs)
    except (PlanError, TrafficError) as error:
        print(error, file=sys.stderr)
        return 1
    _warn_of_models(traffic, configs)
    runs = [
        Run(label, _rehearsed(label, configs[path], traffic, settings, args.seed))
        for label, path in zip(_labels(chosen), chosen, strict=True)
    ]
    if args.plot is not None:
        args.plot.write_text(plot(_title(args), runs), encoding="utf-8")
    _print(runs, args)
    return 0


def _labels(paths: list[Path]) -> list[str]:
    """Short names that differ."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


class PlanError(Exception):
    """A configuration that can't be planned with; one line for each problem."""


class _AnyKey(dict[str, str]):
    """An environment in which every key is set: simulated resources take no real ones."""

    def get(self, name: str, default: Any = None) -> str:
        del name, default
        return "simulated"


def _read_configs(path: Path) -> tuple[InstanceConfig, ...]:
    path.stat()  # a file that was named has to be there
    configs, problems = ConfigStore(path, _AnyKey()).inspect()
    if problems:
        raise PlanError("\n".join(f"{path}: {place}: {reason}" for place, reason in problems))
    if not any(config.enabled for config in configs.values()):
        raise PlanError(f"{path}: has no enabled instance; add one or enable one")
    return tuple(configs.values())


def _check_names(
    path: Path, traffic: Traffic, configs: dict[Path, tuple[InstanceConfig, ...]]
) -> None:
    known = {config.name for group in configs.values() for config in group}
    for name in traffic.spec.resources.instances:
        if name not in known:
            raise PlanError(
                f"{path}: resources.instances: there is no instance named {name!r} in "
                f"{' or '.join(map(str, configs))}; there are {', '.join(sorted(known))}"
            )


def _warn_of_models(traffic: Traffic, configs: dict[Path, tuple[InstanceConfig, ...]]) -> None:
    for path, group in configs.items():
        for model in traffic.models:
            if not any(config.enabled and config.serves(model) for config in group):
                print(
                    f"{path}: no enabled instance serves {model!r}: its requests get 404",
                    file=sys.stderr,
                )


def _rehearsed(
    label: str,
    configs: tuple[InstanceConfig, ...],
    traffic: Traffic,
    settings: Settings,
    seed: int,
) -> Findings:
    scenario = Scenario(
        configs,
        traffic,
        settings.routing_strategy,
        settings.max_queue_wait_seconds,
        settings.max_waiting_requests,
    )
    progress = Progress(sys.stderr, label, traffic.duration_s)
    try:
        return rehearse(scenario, seed, progress.at)
    finally:
        progress.close()


def _expect_sense(args: argparse.Namespace) -> None:
    """So that a wrong path is found before the work and not after it."""
    plot = args.plot
    if plot is not None:
        if plot.suffix.lower() != ".svg":
            raise PlanError(f"{plot}: the picture is SVG; its name must end in .svg")
        if not plot.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(plot.parent))
        if plot.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(plot))
    if args.compare is not None and args.compare.resolve() == args.config.resolve():
        raise PlanError(f"{args.compare}: --compare takes another file than --config")


def _title(args: argparse.Namespace) -> str:
    names = [args.config.name] if args.compare is None else [args.config.name, args.compare.name]
    return f"{args.traffic.name} on {' and '.join(names)}, seed {args.seed}"


def _print(runs: list[Run], args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(report.document(runs, args.seed), indent=2))
        return
    for line in report.lines(runs):
        print(line)
