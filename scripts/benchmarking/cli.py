"""The command: arguments, the order of things, and where the results go."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from . import aged, meter, plot, report, scenarios
from .peers import REPOSITORY, Peer, available
from .results import BARS, Results, Sample
from .running import PeerFailed, upstream
from .scenarios import FULL, QUICK, Bench

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIOS: dict[str, Callable[[Bench, Peer], Sample]] = {
    "requests": scenarios.requests,
    "latency": scenarios.latency,
    "fast_streams": scenarios.fast_streams,
    "paced_streams": scenarios.paced_streams,
    "open_streams": scenarios.open_streams,
    "large_prompts": scenarios.large_prompts,
    "counted_prompts": scenarios.counted_prompts,
    "instances": scenarios.instances,
    "waiting": scenarios.waiting,
    "aged": aged.aged,
    "start": scenarios.start,
}


def main() -> int:
    """Measures and reports. Its exit status: see `exit_status`.

    Errors: `SystemExit` with a message before anything is measured, for what can't be.
    """
    arguments = _arguments()
    if not sys.platform.startswith("linux"):
        print("The benchmark needs Linux: it pins processes to cores and reads /proc.")
        return 1
    chosen = _peers(arguments)
    scenario_names = arguments.only or list(SCENARIOS)
    if not any(_applies(name, peer) for name in scenario_names for peer in chosen):
        raise SystemExit("There is nothing to measure: none of the peers is for these scenarios.")
    _make_folder(arguments.output)
    plan = QUICK if arguments.quick else FULL
    if arguments.repeats:
        plan = replace(plan, repeats=arguments.repeats)
    facts = meter.machine()
    results = Results()
    meter.allow_many_files()
    peer_cores, rest_cores = meter.split_cores()
    os.sched_setaffinity(0, rest_cores)
    facts["cores"] = f"{peer_cores} for the peer, {rest_cores} for load and upstream"
    began = meter.SystemTime.now()
    with upstream(rest_cores) as (port, pid):
        bench = Bench(plan, peer_cores, rest_cores, port, pid)
        for repeat in range(plan.repeats):
            for name in scenario_names:
                for peer in chosen:
                    if _applies(name, peer):
                        print(f"{repeat + 1}/{plan.repeats} {name}: {peer.name}", file=sys.stderr)
                        _measure(bench, name, peer, results)
    stolen = meter.SystemTime.now().stolen_share_since(began)
    facts["taken by other machines on the host"] = f"{stolen:.0%} of the wanted CPU time"
    _write(arguments.output, results, chosen, bench, facts)
    return exit_status(results, strict=arguments.strict)


def exit_status(results: Results, *, strict: bool) -> int:
    """1 if something could not be measured or, if `strict`, a bar was missed; else 0."""
    missed = strict and any(bar.verdict(bar.measured(results)) == "MISS" for bar in BARS)
    return 1 if results.failures or missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description="Measures this service beside its peers, in one run. See docs/performance.md.",
    )
    parser.add_argument("--quick", action="store_true", help="once and short, to see that it works")
    parser.add_argument("--repeats", type=number, metavar="N", help=f"default {FULL.repeats}")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario only")
    parser.add_argument("--peers", help="these only, separated by commas")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a bar is missed")
    parser.add_argument("--litellm", action="store_true", help="LiteLLM too; installs it once")
    parser.add_argument("--service", metavar="COMMAND", help="starts the service instead of ours")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "build" / "benchmark", metavar="FOLDER"
    )
    return parser.parse_args()


def _peers(arguments: argparse.Namespace) -> list[Peer]:
    peers = available(service_command=arguments.service, with_litellm=arguments.litellm)
    if arguments.peers is None:
        return peers
    names = [name.strip() for name in arguments.peers.split(",")]
    here = [peer.name for peer in peers]
    unknown = sorted(set(names) - set(here))
    if unknown:
        raise SystemExit(f"Not here: {', '.join(map(repr, unknown))}; here are {', '.join(here)}.")
    return [peer for peer in peers if peer.name in names]


def number(text: str) -> int:
    """Errors: `ValueError`, which argparse explains."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def _make_folder(folder: Path) -> None:
    """It is there before half an hour's figures are to be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SystemExit(f"Nothing can be written to {folder}: {error.strerror}.") from error


def _applies(scenario: str, peer: Peer) -> bool:
    if scenario in ("instances", "waiting", "aged", "counted_prompts"):
        return peer.name == "service"
    if peer.name == "outline":  # it answers small requests and nothing else
        return scenario in ("requests", "latency")
    return peer.command is not None or scenario not in ("open_streams", "start")


def _measure(bench: Bench, name: str, peer: Peer, results: Results) -> None:
    try:
        sample = SCENARIOS[name](bench, peer)
    except PeerFailed as error:
        print(f"  failed: {error}", file=sys.stderr)
        results.failures.append(f"{name}, {peer.name}: {error}")
        sample = {}
    results.add(name, peer.name, sample)


def _write(
    folder: Path, results: Results, peers: list[Peer], bench: Bench, facts: dict[str, str]
) -> None:
    text = report.markdown(results, peers, bench.plan, facts)
    (folder / "benchmark.md").write_text(text)
    (folder / "benchmark.json").write_text(report.as_json(results, bench.plan, facts))
    (folder / "benchmark.svg").write_text(plot.svg(results, peers))
    print(text)
    print(f"Written to {folder}: benchmark.md, benchmark.svg, benchmark.json.", file=sys.stderr)
