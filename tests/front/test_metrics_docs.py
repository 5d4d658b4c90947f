"""What is written about the metrics, dashboard and alerts included, against what is served.

There is no PromQL parser here: an expression is taken apart into names, label matchers, groupings
and parentheses, and each of these is checked.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import yaml
from harness import exact, instance_config, running_system
from prometheus_client.parser import text_string_to_metric_families

from actors.lease import Lease
from proxy.exchange.record import RequestRecord
from proxy.metrics.exposition import Exposition
from proxy.metrics.loop_lag import LoopLag
from proxy.metrics.requests import RequestMetrics
from proxy.metrics.service import BREAKER_STATES, STATUSES, ServiceMetrics, Sources
from proxy.server.connections import ConnectionStatistics
from proxy.upstream.pool import PoolStatistics

DOCS = Path(__file__).parents[2] / "docs"
OURS = "openai_proxy_"
PARTS = ("_bucket", "_sum", "_count")
TARGET_LABELS = {"job", "process", "instance"}
"""What Prometheus adds to each series, as `docs/examples/prometheus.yaml` has it."""
FUNCTIONS = {
    "sum", "max", "rate", "increase", "changes", "histogram_quantile", "max_over_time",
}  # fmt: skip
OPERATORS = {"by", "and", "or"}


class Series(NamedTuple):
    kind: str
    labels: frozenset[str]


def _served() -> dict[str, Series]:
    """All that is registered, with a sample of everything."""
    requests = RequestMetrics(lambda: ["gpt-4"])
    fields: dict[str, Any] = {"operation": "chat/completions", "model": "gpt-4", "instance": "one"}
    requests.add([RequestRecord("r", 0.0, status=503, code="none", first_byte_s=0.1, **fields)])
    pools = {"one": PoolStatistics(idle=1, in_use=2, opened=5, reused=40, closed=2)}

    async def text() -> bytes:
        async with running_system(instance_config("one")) as system:
            lease = await system.leases.acquire(exact(1), 0.0)
            assert isinstance(lease, Lease)
            sources = Sources(
                system=system.statistics,
                pools=lambda: pools,
                connections=lambda: ConnectionStatistics(open=7, idle=3, refused=1),
                running=lambda: 0,
                unrecorded=lambda: 0,
                unwritten=lambda: 0,
            )
            return await Exposition((requests, ServiceMetrics(sources), LoopLag())).text()

    found = {}
    for family in text_string_to_metric_families(trio.run(text).decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = Series(family.type, frozenset(labels))
    return found


@pytest.fixture(scope="module")
def served() -> dict[str, Series]:
    return _served()


def described() -> dict[str, Series]:
    """The rows of the page's tables."""
    rows = re.findall(
        r"^\| `(openai_proxy_\w+)` \| (\w+) \|[^|]+\|([^|]*)\|[^|]+\|$",
        (DOCS / "metrics.md").read_text(),
        re.MULTILINE,
    )
    found = {
        name: Series(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows
    }
    assert len(found) == len(rows), "a series is described twice"
    return found


def test_every_series_is_described_as_it_is(served: dict[str, Series]) -> None:
    ours = {name: series for name, series in served.items() if name.startswith(OURS)}
    assert described() == ours
    assert len(ours) > 30


def test_units_are_in_the_names() -> None:
    """Prometheus' conventions: base units, a counter ends in `_total`."""
    for name, series in described().items():
        assert (series.kind == "counter") == name.endswith("_total"), name
        assert series.kind != "histogram" or name.endswith("_seconds"), name
        assert not re.search(r"_(ms|milliseconds|percent|kb)\b", name), name


def test_the_words_of_enumerations_are_described() -> None:
    text = (DOCS / "metrics.md").read_text()
    for word in (*STATUSES, *BREAKER_STATES):
        assert f"`{word}`" in text


# -- expressions -------------------------------------------------------------------------------


def problems(expression: str, served: dict[str, Series]) -> list[str]:
    """What is wrong with a PromQL expression, as far as one can see without a parser."""
    found = [] if _balanced(expression) else ["unbalanced brackets"]
    available = set(TARGET_LABELS)
    for name, matchers in re.findall(
        r"([a-z_][\w:]*)(?:\{([^}]*)\})?", _without_groups(expression)
    ):
        if name in FUNCTIONS | OPERATORS:
            continue
        series = series_of(name, served)
        if series is None:
            found.append(f"no series is called {name}")
            continue
        labels = series.labels | TARGET_LABELS | ({"le"} if name.endswith("_bucket") else set())
        available |= labels
        asked = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)
        found += [f"{name} has no label {label}" for label in asked if label not in labels]
        grows = name.endswith(("_total", *PARTS))
        if grows and not re.search(rf"(rate|increase)\({name}(\{{[^}}]*\}})?\[", expression):
            found.append(f"{name} only grows: take its rate")
    groups = re.findall(r"by \(([^)]*)\)", expression)
    grouped = [label for group in groups for label in re.split(r",\s*", group)]
    found += [f"nothing here has the label {label}" for label in grouped if label not in available]
    if "histogram_quantile" in expression and "le" not in grouped:
        found.append("a quantile needs the label le")
    return found


def _balanced(expression: str) -> bool:
    left = re.sub(r"[^(){}\[\]]", "", re.sub(r'"[^"]*"', "", expression))
    while (shorter := re.sub(r"\(\)|\{\}|\[\]", "", left)) != left:
        left = shorter
    return not left


def _without_groups(expression: str) -> str:
    """Without groupings, ranges and numbers, which hold words of their own."""
    return re.sub(r"by \([^)]*\)|\[[^\]]*\]|\b[\d.]+\b", "", expression)


def series_of(name: str, served: dict[str, Series]) -> Series | None:
    if name == "up":
        return Series("gauge", frozenset())
    for part in PARTS:
        base = name.removesuffix(part)
        if base != name and base in served and served[base].kind == "histogram":
            return served[base]
    series = served.get(name)
    return None if series is None or series.kind == "histogram" else series


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("openai_proxy_waiting > 1", "no series is called openai_proxy_waiting"),
        ("openai_proxy_wait_seconds > 1", "no series is called openai_proxy_wait_seconds"),
        ('openai_proxy_waiting_requests{model="x"}', "has no label model"),
        ("sum by (code) (rate(openai_proxy_requests_total[5m]))", "the label code"),
        ("sum(openai_proxy_requests_total)", "take its rate"),
        ("sum(rate(openai_proxy_requests_total[5m])", "unbalanced"),
        (
            "histogram_quantile(0.9, sum by (model) (rate(openai_proxy_wait_seconds_bucket[5m])))",
            "the label le",
        ),
        ("average(openai_proxy_waiting_requests)", "no series is called average"),
    ],
)
def test_a_wrong_expression_is_noticed(
    expression: str, problem: str, served: dict[str, Series]
) -> None:
    assert any(problem in one for one in problems(expression, served))


# -- the examples ------------------------------------------------------------------------------


def dashboard() -> Any:
    return json.loads((DOCS / "examples" / "dashboard.json").read_text())


def test_the_dashboard_asks_for_what_exists(served: dict[str, Series]) -> None:
    asked = ""
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            expression = target["expr"]
            assert problems(expression, served) == [], panel["title"]
            assert 'process=~"$process"' in expression
            asked += expression
    for name in (
        "requests_total", "attempts_total", "input_tokens_total", "output_tokens_total",
        "request_duration_seconds", "time_to_first_byte_seconds", "wait_seconds",
        "refusals_total", "instance_headroom_tokens", "instance_bench_seconds",
        "instance_breaker_state", "event_loop_lag_seconds",
    ):  # fmt: skip
        assert OURS + name in asked


def test_the_dashboard_can_be_imported() -> None:
    """What Grafana needs: ids of their own, panels that don't overlap, a data source to choose."""
    board = dashboard()
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    text = json.dumps(board)
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}
    assert used == set(variables)


def rules() -> list[Any]:
    groups = yaml.safe_load((DOCS / "examples" / "alerts.yaml").read_text())["groups"]
    assert len({group["name"] for group in groups}) == len(groups)
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_is_complete_and_can_fire(served: dict[str, Series]) -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) > 10
    for rule in rules():
        name = rule["alert"]
        assert re.fullmatch(r"OpenAIProxy[A-Za-z]+", name)
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, name
        assert problems(rule["expr"], served) == [], name
        assert re.search(r"[<>=]=?", re.sub(r"\{[^}]*\}", "", rule["expr"])), f"{name} compares"
        assert re.fullmatch(r"\d+m", rule["for"]), name
        assert rule["labels"]["severity"] in {"warning", "critical"}, name
        assert set(rule["annotations"]) == {"summary", "description"}, name


def test_an_alert_speaks_of_labels_that_it_has(served: dict[str, Series]) -> None:
    for rule in rules():
        expression = rule["expr"]
        groups = re.findall(r"by \(([^)]*)\)", expression)
        kept = TARGET_LABELS
        if groups:
            kept = set.intersection(*(set(re.split(r",\s*", group)) for group in groups))
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
            assert label in kept, rule["alert"]


def test_prometheus_is_told_to_keep_the_label_instance() -> None:
    document = yaml.safe_load((DOCS / "examples" / "prometheus.yaml").read_text())
    [job] = document["scrape_configs"]
    assert job["honor_labels"] is True
    assert job["relabel_configs"] == [{"source_labels": ["__address__"], "target_label": "process"}]
    assert job["job_name"] == "openai-proxy"
    for rule in rules():
        for given in re.findall(r'job="([^"]*)"', rule["expr"]):
            assert given == job["job_name"]
    for file in document["rule_files"]:
        assert (DOCS / "examples" / file).is_file()
