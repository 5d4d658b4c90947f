"""The results as one picture: a bar chart per figure, in SVG written by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from .report import three_digits

if TYPE_CHECKING:
    from .peers import Peer
    from .results import Results


class Chart(NamedTuple):
    scenario: str
    figure: str
    title: str


CHARTS = (
    Chart("requests", "cpu_us", "CPU per request (µs)"),
    Chart("requests", "requests_per_s", "requests/s, 64 connections"),
    Chart("fast_streams", "cpu_us", "CPU per streamed event, fast (µs)"),
    Chart("paced_streams", "cpu_us", "CPU per streamed event, every 20 ms (µs)"),
    Chart("latency", "p50_ms", "latency at 100 requests/s, p50 (ms)"),
    Chart("latency", "p99_ms", "latency at 100 requests/s, p99 (ms)"),
    Chart("open_streams", "memory_per_stream_kib", "memory per open stream (KiB)"),
    Chart("large_prompts", "canary_p99_beside_1000_kb_ms", "small requests beside 1 MB, p99 (ms)"),
    Chart("start", "first_answer_s", "start to first answer (s)"),
    Chart("start", "idle_memory_mb", "resident memory, idle (MB)"),
)

_PANEL_WIDTH = 480
_LABEL_WIDTH = 200
_VALUE_WIDTH = 70
_ROW_HEIGHT = 22
_TITLE_HEIGHT = 34
_COLUMNS = 2
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.title{font-weight:600}"
    ".value{font-size:12px;fill:#555}.bar{fill:#b8c0cc}.ours{fill:#2563eb}"
)


def svg(results: Results, peers: list[Peer]) -> str:
    """All charts for which there are figures, two in a row."""
    panels = [(chart, values) for chart in CHARTS if (values := _values(results, chart, peers))]
    height = _TITLE_HEIGHT + _ROW_HEIGHT * max((len(values) for _, values in panels), default=0)
    rows = math.ceil(len(panels) / _COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_PANEL_WIDTH * _COLUMNS}"'
        f' height="{rows * height + 16}"><style>{_STYLE}</style>'
        '<rect width="100%" height="100%" fill="#fff"/>'
    ]
    for index, (chart, values) in enumerate(panels):
        x = index % _COLUMNS * _PANEL_WIDTH
        y = index // _COLUMNS * height
        parts.append(f'<g transform="translate({x},{y})">{_panel(chart, values)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _values(results: Results, chart: Chart, peers: list[Peer]) -> list[tuple[Peer, float]]:
    medians = [(peer, results.median(chart.scenario, peer.name, chart.figure)) for peer in peers]
    return [(peer, value) for peer, value in medians if not math.isnan(value)]


def _panel(chart: Chart, values: list[tuple[Peer, float]]) -> str:
    longest = max(value for _, value in values) or 1
    scale = (_PANEL_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH) / longest
    parts = [f'<text class="title" x="8" y="22">{escape(chart.title)}</text>']
    for row, (peer, value) in enumerate(values):
        y = _TITLE_HEIGHT + row * _ROW_HEIGHT
        width = max(value * scale, 1)
        kind = "bar ours" if peer.name == "service" else "bar"
        value_x = _LABEL_WIDTH + width + 6
        parts.append(
            f'<text x="8" y="{y + 14}">{escape(peer.title)}</text>'
            f'<rect class="{kind}" x="{_LABEL_WIDTH}" y="{y + 2}" width="{width:.1f}" height="16"/>'
            f'<text class="value" x="{value_x:.1f}" y="{y + 14}">{three_digits(value)}</text>'
        )
    return "".join(parts)
