"""One line per request, written off the critical path.

A finished request leaves its record in a bounded queue; a task turns records into log lines in
small batches, so that a request never waits for its own line.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import logging

    from proxy.exchange.record import RequestRecord

MAX_QUEUED: Final = 50_000
"""Records of a few seconds at full load, some tens of megabytes; beyond it lines are dropped and
counted, for serving matters more."""
INTERVAL_S: Final = 0.1
BATCH: Final = 200
"""Lines written between two checkpoints, about 2 ms."""


class RequestLog:
    """Clock: durations in the records are trio seconds; the lines get the log's own timestamp."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._records: deque[RequestRecord] = deque()
        self._dropped = 0

    def add(self, record: RequestRecord) -> None:
        """Never blocks."""
        if len(self._records) < MAX_QUEUED:
            self._records.append(record)
        else:
            self._dropped += 1

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
        for _ in range(min(count, len(self._records))):
            fields = _fields(self._records.popleft())
            self._log.info("request", extra=fields)
        if self._dropped:
            self._log.warning("%d request lines were dropped", self._dropped)
            self._dropped = 0


def _fields(record: RequestRecord) -> dict[str, object]:
    fields: dict[str, object] = {
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
