"""`GET /metrics`: who may read it, and what a running service says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from front_fakes import ADMIN_KEY, KEY, FakeMetrics, config, front
from harness import exact, instance_config, running_system
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import wait_all_tasks_blocked

from actors.lease import Lease
from actors.messages import Outcome
from proxy.metrics.exposition import Exposition
from proxy.metrics.loop_lag import LoopLag
from proxy.metrics.service import ServiceMetrics, Sources
from proxy.server.connections import ConnectionStatistics
from proxy.upstream.pool import PoolStatistics

if TYPE_CHECKING:
    from harness import RunningSystem
    from prometheus_client.registry import Collector
    from trio.testing import MockClock

METRICS_KEY = "the-metrics-key"


# --- who may


@pytest.mark.parametrize(
    "headers",
    [
        KEY,
        {"X-Admin-API-Key": METRICS_KEY},
        {"Authorization": f"Bearer {ADMIN_KEY}"},
        {"Authorization": f"bearer {METRICS_KEY}"},
    ],
)
async def test_either_key_in_either_header_is_let_in(headers: dict[str, str]) -> None:
    app = front(config(), metrics_key=METRICS_KEY)
    response = await app.test_client().get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert await response.get_data() == b"up 1\n"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Basic {ADMIN_KEY}"},
        {"Authorization": ADMIN_KEY},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {METRICS_KEY}"},
        {"X-Admin-API-Key": "wrong"},
        {"api-key": ADMIN_KEY},
    ],
)
async def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    response = await front(config()).test_client().get("/metrics", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="metrics"'


async def test_the_key_of_the_metrics_opens_nothing_else() -> None:
    app = front(config(), metrics_key=METRICS_KEY)
    for headers in ({"X-Admin-API-Key": METRICS_KEY}, {"Authorization": f"Bearer {METRICS_KEY}"}):
        response = await app.test_client().get("/admin/instances", headers=headers)
        assert response.status_code == 401


def test_an_empty_key_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="empty"):
        front(config(), metrics_key="", metrics=FakeMetrics())


# --- what it says


def sources(system: RunningSystem, **others: Any) -> Sources:
    given = {
        "system": system.statistics,
        "pools": dict,
        "connections": lambda: None,
        "running": lambda: 0,
        "unrecorded": lambda: 0,
        "unwritten": lambda: 0,
        **others,
    }
    return Sources(**given)


async def samples(*collectors: Collector) -> dict[tuple[str, frozenset[str]], float]:
    """{(name, label values): value}."""
    text = (await Exposition(collectors).text()).decode()
    return {
        (sample.name.removeprefix("openai_proxy_"), frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def at(name: str, *labels: str) -> tuple[str, frozenset[str]]:
    return name, frozenset(labels)


async def test_instances_as_they_stand(autojump_clock: MockClock) -> None:
    configs = instance_config("one"), instance_config("two", enabled=False)
    async with running_system(*configs) as system:
        metrics = ServiceMetrics(sources(system))
        lease = await system.leases.acquire(exact(300), 0.0)
        assert isinstance(lease, Lease)
        found = await samples(metrics)
        assert found[at("instance_leases", "one")] == 1
        assert found[at("instance_reserved_tokens", "one")] == 300
        assert found[at("instance_limit_tokens", "one")] == 1000
        assert found[at("instance_headroom_tokens", "one")] == 700
        assert found[at("instance_utilization_ratio", "one")] == pytest.approx(0.3)
        assert found[at("instance_attempts_total", "one")] == 1
        assert found[at("instance_enabled", "two")] == 0
        assert found[at("instance_available", "two")] == 0
        assert found[at("instance_status", "one", "healthy")] == 1
        assert found[at("instance_breaker_state", "one", "closed")] == 1
        assert found[at("mailbox_received_messages_total", "router", "")] >= 1

        lease.settle(Outcome("rate_limited", status=429, bench_s=20.0, reached=True))
        await wait_all_tasks_blocked()
        found = await samples(metrics)
        assert found[at("instance_leases", "one")] == 0
        assert found[at("instance_status", "one", "rate_limited")] == 1
        assert found[at("instance_status", "one", "healthy")] == 0
        assert found[at("instance_bench_seconds", "one", "limit")] == 20
        assert found[at("instance_bench_seconds", "one", "credential")] == 0
        assert found[at("instance_errors_total", "one")] == 1


async def test_what_is_gone_is_no_longer_shown() -> None:
    async with running_system(instance_config("one")) as system:
        metrics = ServiceMetrics(sources(system))
        await system.administration.remove("one")
        assert at("instance_leases", "one") not in await samples(metrics)


async def test_connections_requests_and_losses() -> None:
    async with running_system(instance_config("one")) as system:
        pools = {"one": PoolStatistics(idle=1, in_use=2, opened=5, reused=40, closed=2)}
        found = await samples(
            ServiceMetrics(
                sources(
                    system,
                    pools=lambda: pools,
                    connections=lambda: ConnectionStatistics(open=7, idle=3, refused=1),
                    running=lambda: 4,
                    unrecorded=lambda: 6,
                    unwritten=lambda: 8,
                )
            )
        )
    assert found[at("upstream_connections", "one", "idle")] == 1
    assert found[at("upstream_connections", "one", "in_use")] == 2
    assert found[at("upstream_connections_opened_total", "one")] == 5
    assert found[at("upstream_connections_reused_total", "one")] == 40
    assert found[at("client_connections", "active")] == 4
    assert found[at("client_connections", "idle")] == 3
    assert found[at("client_connections_refused_total")] == 1
    assert found[at("requests_in_progress")] == 4
    assert found[at("unrecorded_requests_total")] == 6
    assert found[at("log_lines_dropped_total")] == 8
    assert found[at("waiting_requests")] == 0


async def test_without_a_listener_there_are_no_client_connections() -> None:
    async with running_system() as system:
        found = await samples(ServiceMetrics(sources(system)))
    assert not [name for name, _ in found if name.startswith("client_connections")]


async def test_the_lag_of_the_event_loop(nursery: Any, autojump_clock: MockClock) -> None:
    lag = LoopLag()
    nursery.start_soon(lag.run)
    await wait_all_tasks_blocked()
    autojump_clock.autojump_threshold = float("inf")
    autojump_clock.jump(0.25 + 0.03)  # nobody could run meanwhile
    await wait_all_tasks_blocked()
    found = await samples(lag)
    assert found[at("event_loop_lag_seconds_count")] == 1
    assert found[at("event_loop_lag_seconds_sum")] == pytest.approx(0.03)
    assert found[at("event_loop_lag_seconds_bucket", "0.025")] == 0
    assert found[at("event_loop_lag_seconds_bucket", "0.05")] == 1


def test_every_name_says_what_it_measures_and_in_which_unit() -> None:
    """Prometheus' conventions: counters end in `_total`, durations are seconds."""

    async def text() -> str:
        async with running_system(instance_config("one")) as system:
            return (await Exposition([ServiceMetrics(sources(system)), LoopLag()]).text()).decode()

    import trio

    names = set()
    for family in text_string_to_metric_families(trio.run(text)):
        assert family.documentation
        names.add(family.name)
        assert "_ms" not in family.name
        assert family.type != "counter" or not family.name.endswith("_count")
    assert len(names) > 30
