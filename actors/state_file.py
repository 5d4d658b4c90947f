"""When the state file is written, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import trio

from actors.errors import ChangeRefused

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Mapping

    from actors.child import Child
    from actors.clock import WallClock


class StateStorage(Protocol):
    """See `actors.store.StateStore`."""

    async def save(self, records: Mapping[str, Mapping[str, Any]]) -> None: ...


class StateFile:
    """Written when something in it has changed."""

    def __init__(self, store: StateStorage, clock: WallClock, log: logging.Logger) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._saved: tuple[object, ...] = ()

    async def save(self, children: Iterable[Child]) -> None:
        """The file says how the instances stand. A failure is logged, not raised: the next second
        tries again, and serving matters more than remembering."""
        children = list(children)
        revisions = tuple((child.name, id(child), child.standing.revision) for child in children)
        if revisions == self._saved:
            return
        now = trio.current_time()
        records = {child.name: child.standing.record(now, self._clock) for child in children}
        try:
            await self._store.save(records)
        except ChangeRefused as error:
            self._log.error("state not saved: %s", error)
        else:
            self._saved = revisions
