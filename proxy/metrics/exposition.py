"""The text that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector


class Exposition:
    """All metrics of one service, in a registry of its own: nothing is global.

    A collector may yield a large family in parts, one after the other.
    """

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        for collector in collectors:
            self._registry.register(collector)

    async def text(self) -> bytes:
        """The metrics at this moment. After each family, or each part of a large one, others may
        run: the library takes some ten microseconds per sample, and there can be thousands."""
        pieces = []
        before = ""
        for family in self._registry.collect():
            text = generate_latest(_Only(family))
            # A further part: what describes the family, two lines, has been said.
            pieces.append(text.split(b"\n", 2)[2] if family.name == before else text)
            before = family.name
            await trio.lowlevel.checkpoint()
        return b"".join(pieces)


class _Only:
    """A collector of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
