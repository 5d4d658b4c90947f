"""What finished requests add up to, and that no client can make it grow without bound."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxy.exchange.record import RequestRecord
from proxy.metrics.exposition import Exposition
from proxy.metrics.histogram import Histogram
from proxy.metrics.requests import (
    MAX_CODES,
    MAX_DISCOVERED_MODELS,
    MAX_SERIES,
    RequestMetrics,
    outcome_of,
)


def record(**fields):
    defaults = {
        "operation": "chat/completions",
        "model": "gpt-4",
        "instance": "east",
        "status": 200,
        "attempts": 1,
        "duration_s": 1.5,
        "first_byte_s": 0.2,
        "input_tokens": 10,
        "output_tokens": 3,
    }
    return RequestRecord("r", 0.0, **{**defaults, **fields})


async def samples(*collectors):
    """{(name, sorted labels): value}, read by the client library's own parser."""
    text = (await Exposition(collectors).text()).decode()
    return {
        (
            sample.name.removeprefix("openai_proxy_"),
            tuple(sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("openai_proxy_")
    }


def key(name, **labels):
    return name, tuple(sorted(labels.items()))


async def counted(*records, configured=("gpt-4",)):
    metrics = RequestMetrics(lambda: configured)
    metrics.add(records)
    return await samples(metrics)


async def test_requests_are_counted_by_model_instance_stream_and_outcome():
    found = await counted(
        record(),
        record(status=500),
        record(status=500),
        record(instance="west", stream=True, input_tokens=None, output_tokens=None),
    )
    east = {"model": "gpt-4", "instance": "east", "stream": "false"}
    west = {"model": "gpt-4", "instance": "west", "stream": "true"}
    assert found[key("requests_total", outcome="success", **east)] == 1
    assert found[key("requests_total", outcome="server_error", **east)] == 2
    assert found[key("requests_total", outcome="success", **west)] == 1
    assert found[key("input_tokens_total", **east)] == 30
    assert found[key("output_tokens_total", **east)] == 9
    assert found[key("input_tokens_total", **west)] == 0


async def test_durations_are_histograms_in_seconds():
    found = await counted(record(duration_s=0.3), record(duration_s=400), record(first_byte_s=None))
    labels = {"model": "gpt-4", "instance": "east", "stream": "false"}
    assert found[key("request_duration_seconds_bucket", le="0.25", **labels)] == 0
    assert found[key("request_duration_seconds_bucket", le="0.5", **labels)] == 1
    assert found[key("request_duration_seconds_bucket", le="300.0", **labels)] == 2
    assert found[key("request_duration_seconds_bucket", le="+Inf", **labels)] == 3
    assert found[key("request_duration_seconds_count", **labels)] == 3
    assert found[key("request_duration_seconds_sum", **labels)] == pytest.approx(401.8)
    assert found[key("time_to_first_byte_seconds_count", **labels)] == 2


async def test_attempts_waits_and_refusals():
    found = await counted(
        record(attempts=3, wait_s=2.5),
        record(attempts=0, instance="", status=429, code="rate_limit_exceeded", wait_s=10.0),
        record(code="upstream_interrupted"),
        record(code="upstream_error"),
    )
    assert found[key("attempts_total", model="gpt-4")] == 5
    assert found[key("wait_seconds_count", model="gpt-4")] == 4
    assert found[key("wait_seconds_sum", model="gpt-4")] == 12.5
    refusals = {name: count for name, count in found.items() if name[0] == "refusals_total"}
    assert refusals == {key("refusals_total", code="rate_limit_exceeded"): 1}


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"status": 200}, "success"),
        ({"status": 304}, "success"),
        ({"status": 200, "code": "upstream_interrupted"}, "interrupted"),
        ({"status": 200, "code": "upstream_error"}, "interrupted"),
        ({"status": 400}, "client_error"),
        ({"status": 429}, "rate_limited"),
        ({"status": 499}, "client_closed"),
        ({"status": 503}, "server_error"),
    ],
)
def test_the_outcome_is_what_the_client_saw(fields, outcome):
    assert outcome_of(record(**fields)) == outcome


async def test_a_model_that_nobody_serves_is_other():
    found = await counted(record(model="made-up", instance="", status=404, code="model_not_found"))
    labels = {"model": "other", "instance": "", "stream": "false"}
    assert found[key("requests_total", outcome="client_error", **labels)] == 1


async def test_what_is_no_model_request_has_no_model():
    found = await counted(record(model="", operation="", instance="", status=401, attempts=0))
    labels = {"model": "", "instance": "", "stream": "false"}
    assert found[key("requests_total", outcome="client_error", **labels)] == 1
    assert not [name for name, _ in found if name.startswith(("attempts", "wait"))]


async def test_a_model_that_an_instance_serves_unconfigured_counts_once_it_has_succeeded():
    found = await counted(record(model="new", status=404), record(model="new"), configured=())
    labels = {"instance": "east", "stream": "false"}
    assert found[key("requests_total", model="other", outcome="client_error", **labels)] == 1
    assert found[key("requests_total", model="new", outcome="success", **labels)] == 1


async def test_a_model_is_known_as_soon_as_it_is_configured():
    configured = []
    metrics = RequestMetrics(lambda: configured)
    metrics.add([record(status=500)])
    configured.append("gpt-4")
    metrics.add([record(status=500)])
    found = await samples(metrics)
    labels = {"instance": "east", "stream": "false", "outcome": "server_error"}
    assert found[key("requests_total", model="other", **labels)] == 1
    assert found[key("requests_total", model="gpt-4", **labels)] == 1


async def test_nothing_that_clients_or_upstreams_invent_makes_it_grow_without_bound():
    metrics = RequestMetrics(lambda: ())
    metrics.add(record(model=f"m{number}", code=f"c{number}") for number in range(20_000))
    metrics.add(record(instance=f"i{number}", model="m1") for number in range(20_000))
    found = await samples(metrics)
    requests = [labels for name, labels in found if name == "requests_total"]
    assert len({dict(labels)["model"] for labels in requests}) == MAX_DISCOVERED_MODELS + 1
    assert len(requests) <= MAX_SERIES + 1
    assert len([name for name, _ in found if name == "refusals_total"]) == MAX_CODES + 1
    assert sum(value for (name, _), value in found.items() if name == "requests_total") == 40_000


async def test_labels_that_need_escaping_come_back_as_they_were():
    model = 'a"b\\c\nd'
    found = await counted(record(model=model), configured=(model,))
    labels = {"model": model, "instance": "east", "stream": "false"}
    assert found[key("requests_total", outcome="success", **labels)] == 1


async def test_the_process_is_measured_too():
    text = (await Exposition(()).text()).decode()
    assert "process_cpu_seconds_total " in text
    assert 'python_gc_collections_total{generation="0"} ' in text


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_counts_every_value_once_in_the_right_bucket(values):
    bounds = (0.1, 1.0, 10.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.add(value)
    assert histogram.buckets() == [
        *((str(bound), sum(value <= bound for value in values)) for bound in bounds),
        ("+Inf", len(values)),
    ]
    assert math.isclose(histogram.total, math.fsum(values), abs_tol=1e-6)
