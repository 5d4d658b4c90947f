"""The results as Markdown tables and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from .results import BARS, Results, added, ratio

if TYPE_CHECKING:
    from .peers import Peer
    from .scenarios import Plan

_BUSY_SHARE = 0.95
_DISTURBED_SHARE = 0.05
_KEPT_UP_SHARE = 0.95


class Column(NamedTuple):
    figure: str
    heading: str


TITLES = {
    "requests": "Small requests, closed loop with 64 connections",
    "latency": "100 small requests/s, open loop: latency from the time each was due",
    "fast_streams": "Streams of 50 events, as fast as possible",
    "paced_streams": "Streams of 50 events, one every 20 ms, 50 at a time",
    "open_streams": "Many open streams, an event every 4 s in each",
    "large_prompts": "Small requests beside large prompts (50/s of 100 KB, 10/s of 1 MB)",
    "counted_prompts": "Small requests beside prompts that are counted exactly (4/s of 1 MB)",
    "instances": "Small requests with 1, 10 and 100 instances",
    "waiting": "Small requests alone, and beside 1 000 that wait for capacity",
    "aged": "Small requests at the start, after an hour of traffic, and without any files",
    "start": "Start",
}

COLUMNS = {
    "requests": (
        Column("cpu_us", "CPU per request (µs)"),
        Column("requests_per_s", "requests/s"),
        Column("p50_ms", "p50 (ms)"),
        Column("p99_ms", "p99 (ms)"),
        Column("upstream_cpu_us", "upstream's CPU (µs)"),
        Column("load_cpu_us", "load's CPU (µs)"),
        Column("rest_busy_share", "their core busy"),
    ),
    "latency": (
        Column("p50_ms", "p50 (ms)"),
        Column("p99_ms", "p99 (ms)"),
        Column("p99_9_ms", "p99.9 (ms)"),
        Column("cpu_us", "CPU per request (µs)"),
    ),
    "fast_streams": (
        Column("cpu_us", "CPU per event (µs)"),
        Column("events_per_s", "events/s"),
        Column("first_content_p50_ms", "first content p50 (ms)"),
        Column("rest_busy_share", "load's and upstream's core busy"),
    ),
    "paced_streams": (
        Column("cpu_us", "CPU per event (µs)"),
        Column("first_content_p50_ms", "first content p50 (ms)"),
        Column("event_delay_p99_ms", "event late, p99 (ms)"),
    ),
    "open_streams": (
        Column("memory_per_stream_kib", "memory per stream (KiB)"),
        Column("cpu_share", "share of a core"),
        Column("cpu_us", "CPU per event (µs)"),
        Column("event_delay_p99_ms", "event late, p99 (ms)"),
    ),
    "large_prompts": (
        Column("canary_p50_beside_100_kb_ms", "p50 beside 100 KB (ms)"),
        Column("canary_p99_beside_100_kb_ms", "p99 beside 100 KB (ms)"),
        Column("canary_p50_beside_1000_kb_ms", "p50 beside 1 MB (ms)"),
        Column("canary_p99_beside_1000_kb_ms", "p99 beside 1 MB (ms)"),
    ),
    "counted_prompts": (
        Column("canary_p50_beside_1000_kb_ms", "p50 beside 1 MB (ms)"),
        Column("canary_p99_beside_1000_kb_ms", "p99 beside 1 MB (ms)"),
    ),
    "instances": (
        Column("cpu_with_1_us", "CPU per request, 1 (µs)"),
        Column("cpu_with_10_us", "10 (µs)"),
        Column("cpu_with_100_us", "100 (µs)"),
        Column("requests_with_1_per_s", "requests/s, 1"),
        Column("requests_with_100_per_s", "100"),
    ),
    "waiting": (
        Column("cpu_alone_us", "CPU per request, alone (µs)"),
        Column("cpu_beside_us", "beside 1 000 (µs)"),
        Column("p99_alone_ms", "p99 alone (ms)"),
        Column("p99_beside_ms", "p99 beside 1 000 (ms)"),
    ),
    "aged": (
        Column("cpu_fresh_us", "CPU per request, at the start (µs)"),
        Column("cpu_aged_us", "after an hour (µs)"),
        Column("cpu_unsaved_us", "without files (µs)"),
        Column("p99_fresh_ms", "p99 at the start (ms)"),
        Column("p99_aged_ms", "p99 after an hour (ms)"),
    ),
    "start": (
        Column("first_answer_s", "first answer (s)"),
        Column("idle_memory_mb", "resident memory (MB)"),
    ),
}


def markdown(results: Results, peers: list[Peer], plan: Plan, facts: dict[str, str]) -> str:
    """The whole report."""
    parts = [
        "# Benchmark",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        f"Medians of {plan.repeats}; ratios are medians of the ratios within a repeat. "
        f"{plan.open_streams} open streams.",
        _bars(results),
        *(_scenario(results, name, peers) for name in TITLES if name in results.samples),
    ]
    notes = [*_doubts(results), *results.failures]
    if notes:
        parts.append("## Doubts\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def as_json(results: Results, plan: Plan, facts: dict[str, str]) -> str:
    """Every sample, and the bars."""
    bars = []
    for bar in BARS:
        value = bar.measured(results)
        bars.append(
            {
                "title": bar.title,
                "unit": bar.unit,
                "limit": bar.limit,
                "aim": bar.aim,
                "measured": None if math.isnan(value) else value,
                "verdict": bar.verdict(value),
            }
        )
    document = {
        "facts": facts,
        "plan": asdict(plan),
        "bars": bars,
        "samples": {
            scenario: {
                peer: [_without_nan(sample) for sample in samples]
                for peer, samples in by_peer.items()
            }
            for scenario, by_peer in results.samples.items()
        },
        "failures": results.failures,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _without_nan(sample: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in sample.items() if not math.isnan(value)}


def _bars(results: Results) -> str:
    rows = []
    for bar in BARS:
        value = bar.measured(results)
        sign = "≥" if bar.more_is_better else "≤"
        rows.append(
            [
                bar.title,
                f"{sign} {bar.limit:g} {bar.unit}",
                f"{bar.aim:g} {bar.unit}",
                f"{three_digits(value)} {bar.unit}" if not math.isnan(value) else "",
                bar.verdict(value),
            ]
        )
    return "## Bars\n\n" + _table(["figure", "bar", "aim", "measured", ""], rows)


def _scenario(results: Results, name: str, peers: list[Peer]) -> str:
    columns = COLUMNS[name]
    headings = ["", *(column.heading for column in columns), *_comparisons(name)]
    rows = [
        [
            peer.title,
            *(three_digits(results.median(name, peer.name, column.figure)) for column in columns),
            *(three_digits(value) for value in _compared(results, name, peer.name)),
        ]
        for peer in peers
        if peer.name in results.samples[name]
    ]
    return f"## {TITLES[name]}\n\n" + _table(headings, rows)


def _comparisons(scenario: str) -> list[str]:
    if scenario == "latency":
        return ["added p50 (ms)", "added p99 (ms)", "added p99.9 (ms)"]
    if scenario in ("requests", "fast_streams", "paced_streams"):
        return ["CPU × relay"]
    return []


def _compared(results: Results, scenario: str, peer: str) -> list[float]:
    if scenario == "latency":
        return [added(results, figure, peer) for figure in ("p50_ms", "p99_ms", "p99_9_ms")]
    if _comparisons(scenario):
        return [ratio(results, scenario, "cpu_us", peer, "relay")]
    return []


def _doubts(results: Results) -> list[str]:
    """What makes a figure worth less than it looks."""
    doubts = []
    for scenario, by_peer in results.samples.items():
        for peer in by_peer:
            errors = sum(sample.get("errors", 0) for sample in by_peer[peer])
            if errors:
                doubts.append(f"{scenario}, {peer}: {errors:.0f} requests went wrong")
            if results.median(scenario, peer, "rest_busy_share") > _BUSY_SHARE:
                doubts.append(
                    f"{scenario}, {peer}: load and upstream used up their core, so its rate is a "
                    "lower bound; its CPU per answer or event is not touched by that"
                )
            if results.median(scenario, peer, "kept_up_share") < _KEPT_UP_SHARE:
                doubts.append(f"{scenario}, {peer}: it did not keep up with the rate of requests")
            others = results.median(scenario, peer, "others_busy_share")
            if others > _DISTURBED_SHARE:
                doubts.append(
                    f"{scenario}, {peer}: other processes used {others:.0%} of the machine"
                )
    return doubts


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def three_digits(value: float) -> str:
    """Three digits that count."""
    if math.isnan(value):
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
