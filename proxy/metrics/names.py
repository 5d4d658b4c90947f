"""What all metrics of this program have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX: Final = "openai_proxy_"


def counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, about, labels=labels)


def gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, about, labels=labels)


def histogram(name: str, about: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(PREFIX + name, about, labels=labels)


def one_of(
    family: GaugeMetricFamily, labels: Sequence[str], states: Sequence[str], now: str
) -> None:
    """A sample for each state: 1 for the one that holds now, 0 for the others."""
    for state in states:
        family.add_metric([*labels, state], float(state == now))
