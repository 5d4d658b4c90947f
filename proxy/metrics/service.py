"""How the service stands at the moment of the question: instances, queues, connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

from actors.models import Status
from actors.policy.breaker import BreakerState
from proxy import __version__
from proxy.metrics.names import counter, gauge, one_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from actors.mailbox import MailboxStatistics
    from actors.statistics import InstanceStatistics, SystemStatistics
    from proxy.server.connections import ConnectionStatistics
    from proxy.upstream.pool import PoolStatistics

STATUSES: Final[tuple[str, ...]] = get_args(Status)
BREAKER_STATES: Final[tuple[str, ...]] = get_args(BreakerState)


@dataclass(frozen=True)
class Sources:
    """Where to read. Each is called once per question and must not block.

    `connections`: None as long as nothing is listened for. `running`: requests in progress.
    `unrecorded`: requests, and `unwritten`: log lines, that were given up since the start.
    """

    system: Callable[[], SystemStatistics]
    pools: Callable[[], Mapping[str, PoolStatistics]]
    connections: Callable[[], ConnectionStatistics | None]
    running: Callable[[], int]
    unrecorded: Callable[[], int]
    unwritten: Callable[[], int]


class ServiceMetrics:
    """A collector of the client library."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        system = self._sources.system()
        yield from _instances(system.instances)
        yield from _capacity(system.instances)
        yield from _queues(system)
        yield from _upstream_connections(self._sources.pools())
        connections = self._sources.connections()
        if connections is not None:
            yield from _client_connections(connections)
        running = gauge("requests_in_progress", "Requests being served, those that wait too")
        running.add_metric([], self._sources.running())
        yield running
        unrecorded = counter("unrecorded_requests", "Requests in no log line and no other metric")
        unrecorded.add_metric([], self._sources.unrecorded())
        yield unrecorded
        unwritten = counter("log_lines_dropped", "Lines that the log had no room for")
        unwritten.add_metric([], self._sources.unwritten())
        yield unwritten
        build = gauge("build_info", "Always 1; the version is a label", "version")
        build.add_metric([__version__], 1)
        yield build


def _instances(instances: tuple[InstanceStatistics, ...]) -> Iterator[Metric]:
    enabled = gauge("instance_enabled", "1 if the operator has it enabled", "instance")
    available = gauge("instance_available", "1 if it takes requests", "instance")
    status = gauge("instance_status", "1 for the status that it has", "instance", "status")
    breaker = gauge("instance_breaker_state", "1 for its breaker's state", "instance", "state")
    bench = gauge(
        "instance_bench_seconds", "For how long it is left alone, by reason", "instance", "reason"
    )
    attempts = counter("instance_attempts", "Requests that it was given", "instance")
    successes = counter("instance_successes", "Requests that it served", "instance")
    errors = counter("instance_errors", "Requests that it failed", "instance")
    for one in instances:
        name = [one.name]
        enabled.add_metric(name, one.enabled)
        available.add_metric(name, one.available)
        one_of(status, name, STATUSES, one.status)
        one_of(breaker, name, BREAKER_STATES, one.breaker)
        for reason, seconds in one.bench_s.items():
            bench.add_metric([*name, reason], seconds)
        attempts.add_metric(name, one.attempts)
        successes.add_metric(name, one.successes)
        errors.add_metric(name, one.errors)
    yield from (enabled, available, status, breaker, bench, attempts, successes, errors)


def _capacity(instances: tuple[InstanceStatistics, ...]) -> Iterator[Metric]:
    limit = gauge("instance_limit_tokens", "Tokens per minute, as configured", "instance")
    free = gauge("instance_headroom_tokens", "Tokens that can be reserved now", "instance")
    reserved = gauge("instance_reserved_tokens", "Tokens reserved by open leases", "instance")
    used = gauge("instance_used_tokens", "Tokens used in the last minute", "instance")
    requests = gauge("instance_used_requests", "Requests in the last minute", "instance")
    share = gauge("instance_utilization_ratio", "Share of its fullest limit in use", "instance")
    leases = gauge("instance_leases", "Requests that it serves now", "instance")
    for one in instances:
        name = [one.name]
        limit.add_metric(name, one.limit_tokens)
        free.add_metric(name, one.free_tokens)
        reserved.add_metric(name, one.reserved_tokens)
        used.add_metric(name, one.used_tokens)
        requests.add_metric(name, one.used_requests)
        share.add_metric(name, one.utilization)
        leases.add_metric(name, one.leases)
    yield from (limit, free, reserved, used, requests, share, leases)


def _queues(system: SystemStatistics) -> Iterator[Metric]:
    waiting = gauge("waiting_requests", "Requests that wait for capacity")
    waiting.add_metric([], system.waiting)
    yield waiting
    labels = ("actor", "instance")
    depth = gauge("mailbox_messages", "Messages that wait, by lane", *labels, "lane")
    peak = gauge("mailbox_peak_messages", "The most requests that ever waited", *labels)
    received = counter("mailbox_received_messages", "Messages taken out", *labels)
    mailboxes: list[tuple[str, str, MailboxStatistics]] = [
        ("router", "", system.router),
        ("supervisor", "", system.supervisor),
        *(("instance", one.name, one.mailbox) for one in system.instances),
    ]
    for actor, instance, mailbox in mailboxes:
        depth.add_metric([actor, instance, "request"], mailbox.waiting_requests)
        depth.add_metric([actor, instance, "control"], mailbox.waiting_control)
        peak.add_metric([actor, instance], mailbox.peak_requests)
        received.add_metric([actor, instance], mailbox.received)
    yield from (depth, peak, received)


def _upstream_connections(pools: Mapping[str, PoolStatistics]) -> Iterator[Metric]:
    now = gauge("upstream_connections", "Connections to instances", "instance", "state")
    opened = counter("upstream_connections_opened", "Connections opened", "instance")
    reused = counter("upstream_connections_reused", "Requests on a kept connection", "instance")
    closed = counter("upstream_connections_closed", "Connections closed", "instance")
    for instance, pool in pools.items():
        now.add_metric([instance, "idle"], pool.idle)
        now.add_metric([instance, "in_use"], pool.in_use)
        opened.add_metric([instance], pool.opened)
        reused.add_metric([instance], pool.reused)
        closed.add_metric([instance], pool.closed)
    yield from (now, opened, reused, closed)


def _client_connections(connections: ConnectionStatistics) -> Iterator[Metric]:
    now = gauge("client_connections", "Connections from clients", "state")
    now.add_metric(["idle"], connections.idle)
    now.add_metric(["active"], connections.open - connections.idle)
    refused = counter("client_connections_refused", "Connections over a limit")
    refused.add_metric([], connections.refused)
    yield from (now, refused)
