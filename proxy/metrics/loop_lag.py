"""How late the event loop is: whoever wants to run waits that long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from proxy.metrics.histogram import Histogram
from proxy.metrics.names import histogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

INTERVAL_S: Final = 0.25
LAG_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class LoopLag:
    """A collector of the client library. `run` must be running for it to have anything to say."""

    def __init__(self) -> None:
        self._lags = Histogram(LAG_S)

    async def run(self) -> None:
        """Measures until cancelled."""
        while True:
            due = trio.current_time() + INTERVAL_S
            await trio.sleep_until(due)
            self._lags.add(trio.current_time() - due)

    def collect(self) -> Iterator[Metric]:
        lag = histogram(
            "event_loop_lag_seconds", f"How late a task ran that is due every {INTERVAL_S:g} s"
        )
        lag.add_metric([], self._lags.buckets(), self._lags.total)
        yield lag
