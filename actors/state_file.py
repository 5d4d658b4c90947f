"""When the state file is written, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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
        self._records: dict[str, _Made] = {}
        self._saved: tuple[object, ...] = ()

    async def save(self, children: Iterable[Child]) -> None:
        """The file says how the instances stand. A failure is logged, not raised: the next second
        tries again, and serving matters more than remembering.

        Only the records of instances that have changed are made anew, with a checkpoint after
        each, so that a hundred instances do not hold up requests.
        """
        children = list(children)
        revisions = tuple((id(child), child.standing.revision) for child in children)
        if revisions == self._saved:
            return
        made: dict[str, _Made] = {}
        for child in children:
            made[child.name] = self._record(child)
            await trio.lowlevel.checkpoint()
        self._records = made
        try:
            await self._store.save({name: each.record for name, each in made.items()})
        except ChangeRefused as error:
            self._log.error("state not saved: %s", error)
        else:
            self._saved = revisions

    def _record(self, child: Child) -> _Made:
        known = self._records.get(child.name)
        revision = (id(child), child.standing.revision)
        if known is not None and known.revision == revision:
            return known
        return _Made(revision, child.standing.record(trio.current_time(), self._clock))


class _Made(NamedTuple):
    """A record, and the instance's revision that it shows."""

    revision: tuple[int, int]
    record: dict[str, Any]
