"""What the finished requests add up to, by model and instance.

The client library's own counters cost ten microseconds and more per request, a tenth of what the
whole request may cost; so the sums are kept here, and the library only writes them down.

Labels are bounded: a model counts by its name if an instance is configured for it, or if a request
for it has succeeded (an instance may serve any model), and only so many of either kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from proxy.metrics.histogram import Histogram
from proxy.metrics.names import counter, histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import HistogramMetricFamily, Metric

    from proxy.exchange.record import RequestRecord

T = TypeVar("T")

MAX_DISCOVERED_MODELS: Final = 200
MAX_SERIES: Final = 1_000
"""Of model, instance and stream together; some sixty samples each."""
MAX_CODES: Final = 100
PART: Final = 20
"""Series that are written down at once: some 300 samples, a few milliseconds."""
OTHER: Final = "other"

DURATION_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
FIRST_BYTE_S: Final = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
WAIT_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

_LABELS: Final = ("model", "instance", "stream")
INTERRUPTED: Final = frozenset({"upstream_interrupted", "upstream_error"})
"""The codes of an answer that had begun and was not finished: cut, or ended by an error event of
the upstream's own. Its status was sent long before, and the proxy refused nothing."""


class _Series:
    """The sums of one model on one instance."""

    __slots__ = ("duration", "first_byte", "input_tokens", "outcomes", "output_tokens")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.input_tokens = 0
        self.output_tokens = 0
        self.duration = Histogram(DURATION_S)
        self.first_byte = Histogram(FIRST_BYTE_S)


class _Model:
    """The sums of one model, whatever the instance."""

    __slots__ = ("attempts", "wait")

    def __init__(self) -> None:
        self.attempts = 0
        self.wait = Histogram(WAIT_S)


class RequestMetrics:
    """A collector of the client library. Cost per request: about 3 µs, after it is over."""

    def __init__(self, configured_models: Callable[[], Iterable[str]]) -> None:
        self._configured_models = configured_models
        self._configured: frozenset[str] = frozenset()
        self._looked = False
        """Whether `_configured` is of the batch in hand."""
        self._discovered: set[str] = set()
        self._series: dict[tuple[str, str, bool], _Series] = {}
        self._models: dict[str, _Model] = {}
        self._refusals: dict[str, int] = {}

    def add(self, records: Iterable[RequestRecord]) -> None:
        """Counts a batch of finished requests. Never blocks."""
        self._looked = False
        for record in records:
            self._add(record)

    def _add(self, record: RequestRecord) -> None:
        name = self._label(record)
        series = self._of(name, record)
        outcome = outcome_of(record)
        series.outcomes[outcome] = series.outcomes.get(outcome, 0) + 1
        series.input_tokens += record.input_tokens or 0
        series.output_tokens += record.output_tokens or 0
        series.duration.add(record.duration_s)
        if record.first_byte_s is not None:
            series.first_byte.add(record.first_byte_s)
        if record.operation:
            model = self._models.get(name) or self._models.setdefault(name, _Model())
            model.attempts += record.attempts
            model.wait.add(record.wait_s)
        if record.code and record.code not in INTERRUPTED:
            code = record.code
            if code not in self._refusals and len(self._refusals) >= MAX_CODES:
                code = OTHER
            self._refusals[code] = self._refusals.get(code, 0) + 1

    def _is_configured(self, model: str) -> bool:
        """Looks into all configurations at most once a batch, for a name that was in none."""
        if model not in self._configured and not self._looked:
            self._looked = True
            self._configured = frozenset(self._configured_models())
        return model in self._configured

    def _label(self, record: RequestRecord) -> str:
        model = record.model
        if not model or self._is_configured(model) or model in self._discovered:
            return model
        if record.status < 400 and record.instance and self._room_for_models():
            self._discovered.add(model)
            return model
        return OTHER

    def _room_for_models(self) -> bool:
        return len(self._discovered) < MAX_DISCOVERED_MODELS

    def _of(self, model: str, record: RequestRecord) -> _Series:
        key = (model, record.instance, record.stream)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MAX_SERIES:
                key = (OTHER, OTHER, record.stream)
            series = self._series.setdefault(key, _Series())
        return series

    def collect(self) -> Iterator[Metric]:
        """Large families in parts: see `proxy.metrics.exposition`."""
        for part in _parts(self._series.items()):
            requests = counter(
                "requests", "Requests that are over, by outcome", *_LABELS, "outcome"
            )
            for key, series in part:
                for outcome, count in series.outcomes.items():
                    requests.add_metric([*_values(key), outcome], count)
            yield requests
        yield from self._tokens()
        yield from self._durations()
        yield from self._by_model()
        refusals = counter("refusals", "Errors that the proxy itself answered, by code", "code")
        for code, count in self._refusals.items():
            refusals.add_metric([code], count)
        yield refusals

    def _tokens(self) -> Iterator[Metric]:
        for part in _parts(self._series.items()):
            inputs = counter("input_tokens", "Tokens of prompts, as upstreams reported", *_LABELS)
            for key, series in part:
                inputs.add_metric(_values(key), series.input_tokens)
            yield inputs
        for part in _parts(self._series.items()):
            outputs = counter("output_tokens", "Tokens of answers, as upstreams reported", *_LABELS)
            for key, series in part:
                outputs.add_metric(_values(key), series.output_tokens)
            yield outputs

    def _durations(self) -> Iterator[Metric]:
        about = "From a request's head to the last byte of its answer"
        for part in _parts(self._series.items()):
            durations = histogram("request_duration_seconds", about, *_LABELS)
            for key, series in part:
                _add_histogram(durations, _values(key), series.duration)
            yield durations
        about = "From a request's head to the first byte of its answer"
        for part in _parts(self._series.items()):
            first_bytes = histogram("time_to_first_byte_seconds", about, *_LABELS)
            for key, series in part:
                _add_histogram(first_bytes, _values(key), series.first_byte)
            yield first_bytes

    def _by_model(self) -> Iterator[Metric]:
        attempts = counter("attempts", "Attempts to have a request served, retries too", "model")
        for name, model in self._models.items():
            attempts.add_metric([name], model.attempts)
        yield attempts
        for part in _parts(self._models.items()):
            waits = histogram("wait_seconds", "Time that a request waited for capacity", "model")
            for name, model in part:
                _add_histogram(waits, [name], model.wait)
            yield waits


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    """`items` as they are now, `PART` at a time."""
    left = list(items)
    for begin in range(0, len(left), PART):
        yield left[begin : begin + PART]


def _add_histogram(family: HistogramMetricFamily, labels: list[str], values: Histogram) -> None:
    family.add_metric(labels, values.buckets(), values.total)


def _values(key: tuple[str, str, bool]) -> list[str]:
    model, instance, stream = key
    return [model, instance, "true" if stream else "false"]


def outcome_of(record: RequestRecord) -> str:
    """What came of a request, from the client's point of view."""
    status = record.status
    if record.code in INTERRUPTED:
        return "interrupted"
    if status < 400:
        return "success"
    if status == 499:
        return "client_closed"
    if status == 429:
        return "rate_limited"
    return "client_error" if status < 500 else "server_error"
