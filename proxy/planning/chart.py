"""Lines over time as an SVG picture: panels one above the other on one time axis."""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple
from xml.sax.saxutils import escape

WIDTH: Final = 960
_LEFT: Final = 76
_RIGHT: Final = 20
_HEAD: Final = 34
_ABOVE: Final = 46
"""Title and legend of a panel."""
_BELOW: Final = 34
"""Its times, and some air."""
_FOOT: Final = 16
_INNER: Final = WIDTH - _LEFT - _RIGHT
_TIME_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)
_MOST_TIME_TICKS: Final = 10
_VALUE_TICKS: Final = 4
_NOTHING: Final = 1e-6
"""No axis is finer than this."""
_STYLE: Final = (
    "text{font:12px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#333}"
    ".title{font-size:16px;font-weight:600}.panel{font-size:13px;font-weight:600}"
    ".grid{stroke:#e3e6ea;stroke-width:1}.axis{stroke:#8a929c;stroke-width:1}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
)


class Line(NamedTuple):
    """`values` at equal distances over the whole time. An area lies behind the lines; a limit is
    drawn dashed."""

    label: str
    colour: str
    values: list[float]
    kind: Literal["line", "area", "limit"] = "line"


class Panel(NamedTuple):
    title: str
    lines: list[Line]
    height: int


def svg(title: str, panels: list[Panel], duration_s: float) -> str:
    """The whole picture. All values must be finite and not negative."""
    height = _HEAD + sum(_ABOVE + panel.height + _BELOW for panel in panels) + _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(title)}</title>'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="title" x="{_LEFT}" y="28">{escape(title)}</text>'
    ]
    top = _HEAD
    for panel in panels:
        parts.append(_panel(panel, top + _ABOVE, duration_s))
        top += _ABOVE + panel.height + _BELOW
    parts.append(
        f'<text x="{_LEFT + _INNER / 2}" y="{height - 10}" text-anchor="middle">'
        f"time ({_time_unit(duration_s)})</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _panel(panel: Panel, top: int, duration_s: float) -> str:
    bottom = top + panel.height
    highest, step = _scale(max((max(line.values, default=0) for line in panel.lines), default=0))
    parts = [f'<text class="panel" x="{_LEFT}" y="{top - 26}">{escape(panel.title)}</text>']
    parts += _legend(panel.lines, top - 10)
    for tick in range(round(highest / step) + 1):
        y = bottom - panel.height * tick * step / highest
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _INNER}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(tick * step)}</text>'
        )
    for at_s in _time_ticks(duration_s):
        x = _LEFT + _INNER * at_s / duration_s
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_clock(at_s, duration_s)}'
            "</text>"
        )
    behind_first = sorted(panel.lines, key=lambda line: line.kind != "area")
    parts += [_drawn(line, top, panel.height, highest) for line in behind_first]
    parts.append(f'<path class="axis" fill="none" d="M{_LEFT},{top}V{bottom}H{_LEFT + _INNER}"/>')
    return "".join(parts)


def _legend(lines: list[Line], y: int) -> list[str]:
    parts, x = [], _LEFT
    for line in lines:
        dash = ' stroke-dasharray="5 4"' if line.kind == "limit" else ""
        thick = 9 if line.kind == "area" else 2.5
        parts.append(
            f'<line x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" stroke="{line.colour}"'
            f' stroke-width="{thick}"{dash}/><text x="{x + 28}" y="{y}">{escape(line.label)}</text>'
        )
        x += 46 + 7 * len(line.label)
    return parts


def _drawn(line: Line, top: int, height: int, highest: float) -> str:
    count = max(1, len(line.values) - 1)
    points = [
        f"{_LEFT + _INNER * index / count:.1f},{top + height * (1 - value / highest):.1f}"
        for index, value in enumerate(line.values)
    ]
    if not points:
        return ""
    if line.kind == "area":
        bottom = top + height
        outline = " ".join([f"{_LEFT},{bottom}", *points, f"{_LEFT + _INNER},{bottom}"])
        return f'<polygon points="{outline}" fill="{line.colour}"/>'
    dash = ' stroke-dasharray="5 4"' if line.kind == "limit" else ""
    return f'<polyline class="line" stroke="{line.colour}"{dash} points="{" ".join(points)}"/>'


def _scale(largest: float) -> tuple[float, float]:
    """The top of an axis that `largest` fits under, and the distance of its ticks."""
    if largest < _NOTHING:
        return 1.0, 1.0
    rough = largest / _VALUE_TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    return step * math.ceil(largest / step - 1e-9), step


def short(value: float) -> str:
    """`value` in at most four digits: 950, 1.5 k, 240 k, 3 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _time_ticks(duration_s: float) -> list[float]:
    fitting = (step for step in _TIME_STEPS_S if duration_s / step <= _MOST_TIME_TICKS)
    step = next(fitting, 86_400)
    return [float(step * tick) for tick in range(int(duration_s / step) + 1)]


def _time_unit(duration_s: float) -> str:
    return "h:mm" if duration_s > 7200 else "min:s"


def _clock(at_s: float, duration_s: float) -> str:
    large, small = divmod(int(at_s) // (60 if duration_s > 7200 else 1), 60)
    return f"{large}:{small:02d}"
