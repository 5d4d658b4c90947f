"""Where the things are that a request names: known, or found by asking."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import trio

from proxy.bound.binding import Binding, apart, disabled, not_found_yet, removed, upstream_of
from proxy.bound.ids import SEALED, Key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actors.models import InstanceConfig
    from proxy.bound.asking import Asking
    from proxy.bound.owners import Owners

_log = logging.getLogger("proxy.bound")

MAX_SEARCHED: Final = 3
"""Ids of one request that are searched for; one that is found tells where the others are."""
MISSING_S: Final = 30.0
"""For this time an id that nobody has is not searched for again."""
MAX_MISSING: Final = 1000
NOT_READABLE: Final = frozenset({SEALED, "uploads"})
"""There is no way to ask whether an instance has one of these."""
_LATER: Final = (408, 409, 429)
"""Refusals that say nothing of the id; the others say that it can't be had there."""


class Whereabouts:
    """`configs`: every instance's configuration, by name; must not block. Clock: trio's."""

    def __init__(
        self, owners: Owners, asking: Asking, configs: Callable[[], Mapping[str, InstanceConfig]]
    ) -> None:
        self._owners = owners
        self._asking = asking
        self._configs = configs
        self._missing: OrderedDict[Key, float] = OrderedDict()

    async def binding(self, keys: Sequence[Key]) -> Binding | None:
        """To whom these keys bind a request; None if nobody is known to have them.

        Errors: `ProxyError` if they are apart, or their owner is not there, or may be among those
        that could not be asked.
        """
        known = self._owned(keys)
        if not known:
            return await self._found(keys)
        key, owner = known[0]
        if owner not in self._configs():
            # Perhaps it has only got another name.
            found = await self._found([key], least=1)
            if found is not None:
                return found
        return self.known(keys)

    def known(self, keys: Sequence[Key]) -> Binding | None:
        """As `binding`, without asking anybody."""
        known, configs = self._owned(keys), self._configs()
        if not known:
            return None
        key, owner = known[0]
        config = configs.get(owner)
        if config is None:
            raise removed(key, owner)
        for other_key, other in known[1:]:
            if other in configs and upstream_of(configs[other]) != upstream_of(config):
                raise apart(key, owner, other_key, other)
        return _bound(key, config, configs)

    def _owned(self, keys: Sequence[Key]) -> list[tuple[Key, str]]:
        """Those of `keys` whose owner is remembered, with its name."""
        return [(key, owner) for key in keys if (owner := self._owners.find(key)) is not None]

    def upstreams(self) -> list[frozenset[str]]:
        """The enabled instances, those at one upstream together."""
        groups: dict[tuple[str, ...], set[str]] = {}
        for name, config in self._configs().items():
            if config.enabled:
                groups.setdefault(upstream_of(config), set()).add(name)
        return [frozenset(names) for names in groups.values()]

    async def _found(self, keys: Sequence[Key], *, least: int = 2) -> Binding | None:
        """`least`: upstreams for which it is worth asking. One needs none: the request itself
        will be the question."""
        readable = [key for key in keys if key.partition("/")[0] not in NOT_READABLE]
        for key in readable[:MAX_SEARCHED]:
            owner = await self._search(key, least)
            configs = self._configs()
            if owner is not None and owner in configs:
                return _bound(key, configs[owner], configs)
        return None

    async def _search(self, key: Key, least: int) -> str | None:
        """Asks one instance of each upstream, in the strategy's order, while they have nothing.

        Errors: `ProxyError` if nobody has it, and somebody could not be asked.
        """
        now = trio.current_time()
        if self._missing.get(key, now) > now:
            return None
        left = {name: upstream_of(c) for name, c in self._configs().items() if c.enabled}
        if len(set(left.values())) < least:
            return None
        unsure: list[str] = []
        while left:
            lease = await self._asking.lease(only=frozenset(left))
            if lease is None:
                unsure += left
                break
            answered = await self._asking.get(lease, key)
            name, status = answered.instance, answered.status
            if status is not None and status < 300:
                self._owners.remember(key, name)
                _log.info("%s was not remembered; %s has it", key, name)
                return name
            if status is None or status >= 500 or status in _LATER:
                unsure.append(name)
            asked = left[name]
            left = {other: upstream for other, upstream in left.items() if upstream != asked}
        if unsure:
            raise not_found_yet(key, unsure)
        self._miss(key, now + MISSING_S)
        return None

    def _miss(self, key: Key, until: float) -> None:
        self._missing[key] = until
        self._missing.move_to_end(key)
        if len(self._missing) > MAX_MISSING:
            self._missing.popitem(last=False)


def _bound(key: Key, owner: InstanceConfig, configs: Mapping[str, InstanceConfig]) -> Binding:
    """Errors: `ProxyError` if nobody at the owner's upstream is enabled."""
    upstream = upstream_of(owner)
    names = [
        name
        for name, config in configs.items()
        if config.enabled and upstream_of(config) == upstream
    ]
    if not names:
        raise disabled(key, owner.name)
    return Binding(key, owner.name, frozenset(names))
