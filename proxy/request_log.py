"""One line per request, written off the critical path.

A finished request leaves its record in a bounded queue; a task counts records and turns them into
log lines in small batches, so that a request never waits for its own line.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from proxy import log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.exchange.record import RequestRecord
    from proxy.log import Plain

MAX_QUEUED: Final = 50_000
"""Records of a few seconds at full load, some tens of megabytes; beyond it lines are dropped and
counted, for serving matters more."""
INTERVAL_S: Final = 0.1
BATCH: Final = 200
"""Lines written between two checkpoints, about 2 ms."""


class RequestLog:
    """Clock: durations in the records are trio seconds; the lines get the log's own timestamp."""

    def __init__(
        self, log: logging.Logger, count: Callable[[Sequence[RequestRecord]], None]
    ) -> None:
        """`count`: called with each batch, whatever the log level; must not block."""
        self._log = log
        self._count = count
        self._records: deque[RequestRecord] = deque()
        self._reported = 0
        self.dropped = 0
        """Records that were given up since the start."""

    def add(self, record: RequestRecord) -> None:
        """Never blocks."""
        if len(self._records) < MAX_QUEUED:
            self._records.append(record)
        else:
            self.dropped += 1

    async def run(self) -> None:
        """Writes until cancelled; then what is left."""
        try:
            while True:
                await trio.sleep(INTERVAL_S)
                while self._records:
                    self._write(BATCH)
                    await trio.lowlevel.checkpoint()
        finally:
            self._write(len(self._records))

    def _write(self, count: int) -> None:
        batch = [self._records.popleft() for _ in range(min(count, len(self._records)))]
        self._count(batch)
        if self._log.isEnabledFor(logging.INFO):
            self._log_lines(batch)
        if self.dropped > self._reported:
            self._log.warning("%d request lines were dropped", self.dropped - self._reported)
            self._reported = self.dropped

    def _log_lines(self, batch: Sequence[RequestRecord]) -> None:
        """A record holds ids, names, numbers and a code, never a key; so it may take the short
        way past the search for secrets."""
        writer = log.writer()
        for record in batch:
            if writer is None:
                self._log.info("request", extra=_fields(record))
            else:
                writer.write_plain(self._log.name, "request", _fields(record))


def _fields(record: RequestRecord) -> dict[str, Plain]:
    fields: dict[str, Plain] = {
        "request_id": record.id,
        "operation": record.operation,
        "model": record.model,
        "instance": record.instance,
        "status": record.status,
        "attempts": record.attempts,
        "wait_ms": round(record.wait_s * 1000, 1),
        "duration_ms": round(record.duration_s * 1000, 1),
        "first_byte_ms": (
            None if record.first_byte_s is None else round(record.first_byte_s * 1000, 1)
        ),
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "stream": record.stream,
    }
    if record.code:
        fields["code"] = record.code
    return fields
