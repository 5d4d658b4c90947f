"""Which instance made what: a bounded memory, the longest unused forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.exchange.resources import Key

Entry: TypeAlias = "tuple[Key, str | None]"
"""A key and the name of its owner; None: it is gone."""

MAX_NEWS: Final = 10_000
"""News kept for the journal; beyond that it is told to write everything anew."""


class Owners:
    """Synchronous; every operation takes constant time. Filled from upstream answers only.

    What an id costs: some 300 bytes.
    """

    def __init__(self, limit: int, entries: Iterable[Entry] = ()) -> None:
        self._limit = limit
        self._owners: OrderedDict[Key, str] = OrderedDict()
        self._names: dict[str, str] = {}
        self._news: list[Entry] | None = []
        self.reordered = False
        """Whether anything has been used, which is no news: it only changes what is forgotten
        first."""
        for key, owner in entries:
            self._put(key, owner)
        self._news = []

    def __len__(self) -> int:
        return len(self._owners)

    def find(self, key: Key) -> str | None:
        """The owner of `key`, which counts as used."""
        owner = self._owners.get(key)
        if owner is not None:
            self._owners.move_to_end(key)
            self.reordered = True
        return owner

    def remember(self, key: Key, owner: str) -> None:
        known = self._owners.get(key) == owner
        self._put(key, owner)  # first: who reads the news in order has room for it, too
        if known:
            self.reordered = True
        else:
            self._tell((key, owner))

    def forget(self, key: Key) -> None:
        if key in self._owners:
            self._tell((key, None))
            self._put(key, None)

    def _put(self, key: Key, owner: str | None) -> None:
        if owner is None:
            self._owners.pop(key, None)
            return
        # One text per instance, however many ids it owns.
        self._owners[key] = self._names.setdefault(owner, owner)
        self._owners.move_to_end(key)
        if len(self._owners) > self._limit:
            forgotten, _ = self._owners.popitem(last=False)
            self._tell((forgotten, None))

    def _tell(self, entry: Entry) -> None:
        if self._news is not None:
            self._news.append(entry)
            if len(self._news) > MAX_NEWS:
                self._news = None

    def news(self) -> list[Entry] | None:
        """What has changed since the last call; None: too much to tell, see `entries`."""
        news, self._news = self._news, []
        return news

    def entries(self) -> list[Entry]:
        """Everything, the longest unused first. Cost: linear."""
        return list(self._owners.items())
