"""The service put together: actors, exchange, front end, listener; started in order, stopped in
reverse."""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from tricycle import open_service_nursery

from actors.store import EarlierData, open_stores
from actors.system import System, SystemOptions
from proxy import log
from proxy.bound.bound import Bound
from proxy.bound.journal import Journal, JournalFile, journal_path
from proxy.bound.owners import Owners
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.record import RecentRequests
from proxy.metrics.exposition import Exposition
from proxy.metrics.loop_lag import LoopLag
from proxy.metrics.requests import RequestMetrics
from proxy.metrics.service import ServiceMetrics, Sources
from proxy.request_log import RequestLog
from proxy.server.certificate import Files, Renewal
from proxy.server.limits import Limits
from proxy.server.listen import raise_open_file_limit
from proxy.server.run import serve
from proxy.tokens.count import count
from proxy.tokens.encoder_process import EncoderProcess
from proxy.tokens.output import Allowance
from proxy.upstream.address import AddressBook
from proxy.upstream.dial import SocketDialer
from proxy.upstream.environment import unusable_variables
from proxy.upstream.instances import InstancePools
from proxy.upstream.watch import Watch

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from quart_trio import QuartTrio

    from actors.store import ConfigStore, StateStore
    from proxy.exchange.record import RequestRecord
    from proxy.front.explain import RouteExplanations
    from proxy.server.connections import ConnectionStatistics
    from proxy.server.server import Server
    from proxy.settings import Settings

GC_THRESHOLDS: Final = (10_000, 20, 50)
"""Requests leave no cycles behind, so the collector has little to find; seldom, in small steps."""

_log = logging.getLogger("proxy")
_requests = logging.getLogger("proxy.requests")


def run(settings: Settings) -> int:
    """Serves until a signal stops it; returns the exit status.

    Errors: `BrokenFile`, `FileLocked`, `CertificateError` before anything is started;
    `ListenFailed`.
    """
    trio.run(serve_with_stores, settings)
    return 0


async def serve_with_stores(
    settings: Settings, on_ready: Callable[[list[str]], None] | None = None
) -> None:
    """Serves until a signal stops it. `on_ready` gets the URLs once they answer.

    Reading the two files blocks, before anything else runs. Errors: as `run`.
    """
    raise_open_file_limit()
    files = certificate_files(settings)
    tls = None if files is None else files.context()
    if files is not None and (warning := files.warning()):
        _log.warning(warning)
    async with assembled(settings) as service, trio.open_nursery() as nursery:
        renewal = None if files is None else Renewal(files, service.listening.renew_tls)

        def reload() -> None:
            service.system.administration.reload_soon()
            if renewal is not None:
                nursery.start_soon(renewal.renew)

        urls = await nursery.start(
            partial(
                serve,
                service.exchange,
                service.load_app,
                host=settings.host,
                port=settings.port,
                limits=listener_limits(settings),
                tls=tls,
                notice_s=settings.shutdown_delay_seconds,
                drain_s=settings.shutdown_timeout_seconds,
                on_drain=service.listening.leave,
                on_hangup=reload,
                on_start=service.listening.start,
            )
        )
        _log.info("serving on %s", ", ".join(urls))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        if on_ready is not None:
            on_ready(urls)


def certificate_files(settings: Settings) -> Files | None:
    """The two files of the settings, None for a service without TLS."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return Files(settings.tls_cert_file, settings.tls_key_file)


class Listening:
    """The listener, once there is one, for whoever wants to know of its connections."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self.leaving = False
        """Whether the service has begun to stop."""

    def leave(self) -> None:
        self.leaving = True

    def start(self, server: Server) -> None:
        self._server = server

    def renew_tls(self, tls: ssl.SSLContext) -> None:
        if self._server is not None:
            self._server.renew_tls(tls)

    def statistics(self) -> ConnectionStatistics | None:
        return None if self._server is None else self._server.statistics()


class Service(NamedTuple):
    """Running actors behind the two things that a listener needs; it reports to `listening`.

    `load_app`: blocks and takes long; may be called once, in any thread.
    """

    exchange: Exchange
    load_app: Callable[[], QuartTrio]
    system: System
    listening: Listening


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncIterator[Service]:
    """Everything but the listener, running for the length of the block.

    What requests lean on outlives the block, whatever ends it: leases are settled, the state is
    saved, connections are closed. Errors: `BrokenFile`, `FileLocked`.
    """
    for warning in unusable_variables():
        _log.warning(warning)
    with open_stores(settings.instance_config_file, settings.instance_state_file) as stores:
        watch = Watch()
        pools = InstancePools(SocketDialer(), watch)
        system = _system(settings, *stores, pools)
        request_metrics = RequestMetrics(system.supervisor.configured_models)
        request_log = RequestLog(_requests, request_metrics.add)
        recent = RecentRequests()
        encoder = EncoderProcess(_log)
        means = _means(settings, system, pools, encoder)
        journal_file = JournalFile(journal_path(settings.instance_state_file))
        owners = _owners(journal_file, settings.max_remembered_ids)
        bound = Bound(means, owners, system.supervisor.configs)
        exchange = Exchange(
            means=means,
            models=ModelList(system.administration),
            keys=ClientKeys(key.get_secret_value() for key in settings.proxy_api_keys),
            max_running=settings.max_concurrent_requests,
            record=Recorded(recent, request_log).add,
            bound=bound,
        )
        listening, loop_lag = Listening(), LoopLag()
        sources = Sources(
            system=system.statistics,
            pools=pools.statistics,
            connections=listening.statistics,
            running=lambda: exchange.running,
            unrecorded=lambda: request_log.dropped,
            unwritten=log.dropped,
        )
        metrics = Exposition((request_metrics, ServiceMetrics(sources), loop_lag))
        explanations = partial(_explanations, system, recent, means, bound)
        load_app = partial(_app, settings, system, exchange, metrics, explanations, listening)
        async with open_service_nursery() as services:
            await services.start(system.run)
            await services.start(watch.run)
            services.start_soon(encoder.run)
            services.start_soon(request_log.run)
            services.start_soon(Journal(journal_file, owners, _log).run)
            services.start_soon(loop_lag.run)
            try:
                yield Service(exchange, load_app, system, listening)
            finally:
                pools.close()
                services.cancel_scope.cancel()


def _system(
    settings: Settings, config_store: ConfigStore, state_store: StateStore, pools: InstancePools
) -> System:
    """The actors with what the two files say. Blocks. Errors: `BrokenFile`."""
    configs = config_store.load()
    states, warning = state_store.load()
    if warning:
        _log.warning(warning)
    _log.info("instances configured: %d", len(configs))
    options = SystemOptions(settings.routing_strategy, settings.max_waiting_requests)
    return System(configs, states, config_store, state_store, options, on_change=pools.follow)


def _owners(file: JournalFile, limit: int) -> Owners:
    """What the file says. Blocks."""
    owners = Owners(limit, file.load())
    if file.damaged:
        _log.warning("%s: %d lines could not be read and are left out", file.path, file.damaged)
    return owners


def _means(
    settings: Settings, system: System, pools: InstancePools, encoder: EncoderProcess
) -> Means:
    return Means(
        system.leases,
        pools,
        Allowance(),
        settings.max_queue_wait_seconds,
        AddressBook(on_key=log.register_secret),
        partial(count, encode=encoder.encode),
    )


class Recorded(NamedTuple):
    """Where the record of a finished request goes."""

    recent: RecentRequests
    log: RequestLog

    def add(self, record: RequestRecord) -> None:
        self.recent.add(record)
        self.log.add(record)


def _explanations(
    system: System, recent: RecentRequests, means: Means, bound: Bound
) -> RouteExplanations:
    from proxy.front.explain import RouteExplanations  # with the application: see `_app`

    return RouteExplanations(system.leases, recent, means, system.clock, bound.known)


def _app(
    settings: Settings,
    system: System,
    exchange: Exchange,
    metrics: Exposition,
    explanations: Callable[[], RouteExplanations],
    listening: Listening,
) -> QuartTrio:
    # Imported here because the listener does not wait for it: see `proxy.server.late_app`.
    from proxy.front import http2, websocket
    from proxy.front.app import create_app

    http2.install()
    websocket.install()
    metrics_key = settings.metrics_api_key
    return create_app(
        administration=system.administration,
        exchange=exchange,
        ready=system.supervisor.can_serve,
        leaving=lambda: listening.leaving,
        earlier_data=EarlierData(settings.instance_data_file),
        explanations=explanations(),
        metrics=metrics,
        admin_key=settings.admin_api_key.get_secret_value(),
        metrics_key=None if metrics_key is None else metrics_key.get_secret_value(),
        max_request_bytes=settings.max_request_bytes,
        body_timeout_s=settings.request_timeout_seconds,
    )


def listener_limits(settings: Settings) -> Limits:
    """What the settings say of single clients, in the listener's terms."""
    return Limits(
        head_bytes=settings.max_header_bytes,
        body_bytes=settings.max_request_bytes,
        head_timeout_s=min(Limits().head_timeout_s, settings.request_timeout_seconds),
        body_timeout_s=settings.request_timeout_seconds,
        keep_alive_s=settings.keep_alive_seconds,
        connections=settings.max_connections,
        connections_per_address=settings.max_connections_per_client or settings.max_connections,
    )
