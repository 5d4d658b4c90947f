"""The pools of all instances: what `Upstream` promises."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from actors.address import InvalidAddress
from actors.models import PROXY_FIELD
from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.environment import origin_of
from proxy.upstream.head import head, opening
from proxy.upstream.origin import Origin, target_of
from proxy.upstream.pool import OriginPool, PoolLimits, PoolStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.changes import Difference
    from actors.models import InstanceConfig
    from proxy.exchange.ports import UpstreamRequest
    from proxy.upstream.pool import Dialer
    from proxy.upstream.response import Response
    from proxy.upstream.watch import Watch

OPENINGS_LIMIT: Final = 256
ADDRESS_FIELDS: Final = frozenset({"api_base", PROXY_FIELD})
"""Fields of a configuration that say where its connections lead."""


class InstancePools:
    """One pool per instance and address: no instance can use up another's connections, and after
    a change of address the requests that began before it finish where they began.

    A field `proxy_url` of an instance's configuration names the proxy for it, "" none; without
    the field the environment decides.
    """

    def __init__(
        self,
        dialer: Dialer,
        watch: Watch,
        limits: PoolLimits = PoolLimits(),
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`watch` must be running when the first request is sent."""
        self._dialer = dialer
        self._watch = watch
        self._limits = limits
        self._environ = environ
        self._routes: dict[str, _Route] = {}
        self._pools: dict[tuple[str, Origin], OriginPool] = {}

    async def send(self, request: UpstreamRequest) -> Response:
        """Sends and waits for the head of the answer. Errors: `UpstreamFailure`, and whatever
        reading the request's body raises."""
        config = request.config
        route = self._routes.get(config.name)
        if route is None or route.config is not config:
            route = self._route(config)
        start = route.opening(request.method, request.url)
        whole_head = head(start, request.method, request.headers, request.body)
        return await route.pool.send(request, whole_head)

    def _route(self, config: InstanceConfig) -> _Route:
        proxy_url = (config.model_extra or {}).get(PROXY_FIELD)
        origin = origin_of(config.api_base, self._environ, proxy_url)
        key = (config.name, origin)
        pool = self._pools.get(key)
        if pool is None:
            pool = OriginPool(origin, self._dialer, self._watch, self._limits)
            self._pools[key] = pool
        route = self._routes[config.name] = _Route(config, pool)
        return route

    async def forget(self, instance: str) -> None:
        """The idle connections of `instance` are closed, those in use finish. Its counts are
        gone; a later request begins anew. Not a checkpoint."""
        self._forget(instance)

    def follow(self, change: Difference) -> None:
        """As `forget` for every instance that is gone or has another address. Never blocks."""
        for name in change.removed:
            self._forget(name)
        for name, fields in change.changed.items():
            if not ADDRESS_FIELDS.isdisjoint(fields):
                self._forget(name)

    def _forget(self, instance: str) -> None:
        self._routes.pop(instance, None)
        for key in [key for key in self._pools if key[0] == instance]:
            self._pools.pop(key).retire()

    def close(self) -> None:
        """As `forget` for all instances. Never blocks."""
        self._routes.clear()
        while self._pools:
            self._pools.popitem()[1].retire()

    def statistics(self) -> dict[str, PoolStatistics]:
        """Counts by instance name, for those that have been sent something."""
        totals: dict[str, PoolStatistics] = {}
        for (name, _), pool in self._pools.items():
            totals[name] = totals.get(name, PoolStatistics()) + pool.statistics()
        return totals


class _Route:
    """Where one configuration's requests go, and how they begin."""

    __slots__ = ("_openings", "config", "pool")

    def __init__(self, config: InstanceConfig, pool: OriginPool) -> None:
        self.config = config
        self.pool = pool
        self._openings: dict[tuple[str, str], bytes] = {}

    def opening(self, method: str, url: str) -> bytes:
        """The constant part of the head. Errors: `UpstreamFailure` for a URL elsewhere than at
        the instance: its key must not go there."""
        known = self._openings.get((method, url))
        if known is not None:
            return known
        origin = self.pool.origin
        try:
            elsewhere = Origin.parse(url, origin.proxy) != origin
        except InvalidAddress as error:
            raise UpstreamFailure("connect", "other", f"URL: {error}") from error
        if elsewhere:
            raise UpstreamFailure("connect", "other", "the URL is not at the instance's address")
        if len(self._openings) >= OPENINGS_LIMIT:
            self._openings.clear()
        made = self._openings[method, url] = opening(origin, method, target_of(url))
        return made
