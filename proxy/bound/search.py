"""Looking for what nobody is known to have: the upstreams are asked for it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import trio

from proxy.bound.binding import not_found_yet, upstream_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.lease import Lease
    from actors.models import InstanceConfig
    from proxy.bound.asking import Asking
    from proxy.bound.owners import Owners
    from proxy.exchange.patience import Patience
    from proxy.exchange.resources import Key

_log = logging.getLogger("proxy.bound")

LEAST_S: Final = 5.0
"""For one request's searches, however little it would wait for capacity: this is not that."""
SLOW_S: Final = 0.3
"""After this time without an answer the next upstream is asked as well."""
AT_ONCE: Final = 16
"""Searches in progress. Each keeps one upstream busy, rarely more; another one has to wait."""
MISSING_S: Final = 30.0
"""For this time an id that nobody has is not searched for again."""
MAX_MISSING: Final = 1000


def search_until(patience: Patience, started_at: float) -> float:
    """Until when a request that began at `started_at` may search. Both in trio time."""
    longest_s = max(LEAST_S, patience.wait_s)
    if patience.answer_s is not None:
        longest_s = min(longest_s, patience.answer_s)
    return started_at + longest_s


class Searches:
    """At most one for each key at any time: whoever wants the same waits for the same answer.

    `configs`: every instance's configuration, by name; must not block. Clock: trio's.
    """

    def __init__(
        self, owners: Owners, asking: Asking, configs: Callable[[], Mapping[str, InstanceConfig]]
    ) -> None:
        self._owners = owners
        self._asking = asking
        self._configs = configs
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        self._running: dict[Key, _Search] = {}
        self._missing: OrderedDict[Key, float] = OrderedDict()

    async def owner(self, key: Key, least: int, until: float) -> str | None:
        """Who has it, as is then remembered; None if nobody has, or if it is not worth asking:
        there are fewer upstreams than `least`, or nobody had it a moment ago.

        Errors: `ProxyError` if nobody is found, and somebody could not be asked by `until`.
        """
        now = trio.current_time()
        if self._missing.get(key, now) > now:
            return None
        upstreams = {name: upstream_of(c) for name, c in self._configs().items() if c.enabled}
        if len(set(upstreams.values())) < least:
            return None
        search = _Search(key, self._asking, upstreams)
        with trio.move_on_at(until):
            search = await self._shared(search)
        if search.owner is None:
            if search.undecided:
                raise not_found_yet(key, search.undecided)
            self._miss(key, trio.current_time() + MISSING_S)
        return search.owner

    async def _shared(self, search: _Search) -> _Search:
        """`search`, or another one for the same key, in any case finished."""
        key = search.key
        while (running := self._running.get(key)) is not None:
            await running.over.wait()
            if running.finished:  # else whose it was has gone, or has waited long enough
                return running
        self._running[key] = search
        try:
            async with self._limiter:
                await search.run()
        finally:
            del self._running[key]
            search.over.set()
        if search.owner is not None:
            self._owners.remember(key, search.owner)
            _log.info("%s was not remembered; %s has it", key, search.owner)
        return search

    def _miss(self, key: Key, until: float) -> None:
        self._missing[key] = until
        self._missing.move_to_end(key)
        if len(self._missing) > MAX_MISSING:
            self._missing.popitem(last=False)


class _Search:
    """`undecided`: instances at upstreams that have not said yet whether they have it."""

    def __init__(self, key: Key, asking: Asking, upstreams: dict[str, tuple[str, ...]]) -> None:
        self.key = key
        self.owner: str | None = None
        self.undecided = upstreams
        self.finished = False
        self.over = trio.Event()
        self._asking = asking
        self._asked: set[str] = set()

    async def run(self) -> None:
        """Asks one instance of each upstream, in the strategy's order, while they have nothing;
        another one at the same upstream if the first could not tell."""
        async with trio.open_nursery() as nursery:
            while left := self.undecided.keys() - self._asked:
                lease = await self._asking.lease(only=frozenset(left))
                if lease is None:
                    break
                self._asked.add(lease.config.name)
                answered = trio.Event()
                nursery.start_soon(self._ask, lease, answered, nursery.cancel_scope)
                with trio.move_on_after(SLOW_S):
                    await answered.wait()
        self.finished = True

    async def _ask(self, lease: Lease, answered: trio.Event, all_of_it: trio.CancelScope) -> None:
        answer = await self._asking.get(lease, self.key)
        if answer.succeeded:
            self.owner = answer.instance
            all_of_it.cancel()
        elif answer.conclusive:
            upstream = self.undecided.get(answer.instance)
            self.undecided = {
                name: other for name, other in self.undecided.items() if other != upstream
            }
        answered.set()
