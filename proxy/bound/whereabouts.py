"""Where the things are that a request names: known, or found by asking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.bound.binding import Binding, apart, disabled, removed, upstream_of
from proxy.bound.ids import SEALED
from proxy.bound.search import Searches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actors.models import InstanceConfig
    from proxy.bound.asking import Asking
    from proxy.bound.owners import Owners
    from proxy.exchange.resources import Key

MAX_SEARCHED: Final = 3
"""Ids of one request that are searched for; one that is found tells where the others are."""
NOT_READABLE: Final = frozenset({SEALED, "uploads"})
"""There is no way to ask whether an instance has one of these."""


class Whereabouts:
    """`configs`: every instance's configuration, by name; must not block."""

    def __init__(
        self, owners: Owners, asking: Asking, configs: Callable[[], Mapping[str, InstanceConfig]]
    ) -> None:
        self._owners = owners
        self._configs = configs
        self._searches = Searches(owners, asking, configs)

    async def binding(self, keys: Sequence[Key], until: float) -> Binding | None:
        """To whom these keys bind a request; None if nobody is known to have them. What is not
        remembered may be searched for until `until` (trio time).

        Errors: `ProxyError` if they are apart, or their owner is not there, or may be among those
        that could not be asked.
        """
        known = self._owned(keys)
        if not known:
            return await self._found(keys, until)
        key, owner = known[0]
        if owner not in self._configs():
            # Perhaps it has only got another name.
            found = await self._found([key], until, least=1)
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

    async def _found(self, keys: Sequence[Key], until: float, *, least: int = 2) -> Binding | None:
        """`least`: upstreams for which it is worth asking. One needs none: the request itself
        will be the question."""
        readable = [key for key in keys if key.partition("/")[0] not in NOT_READABLE]
        for key in readable[:MAX_SEARCHED]:
            owner = await self._searches.owner(key, least, until)
            configs = self._configs()
            if owner is not None and owner in configs:
                return _bound(key, configs[owner], configs)
        return None


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
