"""The service as it would be if it wrote neither its state nor what it knows of owners: what
persistence costs is the difference. Run as `python -m benchmarking.unsaved`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from actors.state_file import StateFile
from proxy.bound.journal import Journal
from proxy.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.child import Child


async def _save_nothing(self: StateFile, children: Iterable[Child]) -> None:
    await trio.lowlevel.checkpoint()


async def _write_nothing(self: Journal) -> None:
    await trio.sleep_forever()


if __name__ == "__main__":
    StateFile.save = _save_nothing  # type: ignore[method-assign]
    Journal.run = _write_nothing  # type: ignore[method-assign]
    sys.exit(main([]))
