"""Logging: a line per record on standard error and in a file, without a wait and without secrets.

A record becomes text in the task that logs it, some twenty microseconds, and is left for a thread
to write: neither a slow disk nor a full pipe ever holds up the event loop. Formatting stays out of
that thread on purpose; it would fight the event loop for the interpreter lock.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias
from urllib.parse import quote

from pydantic_core import to_json

from actors.clock import wall_now

if TYPE_CHECKING:
    from io import TextIOWrapper
    from pathlib import Path

LogFormat: TypeAlias = Literal["text", "json"]

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FILE_NAME: Final = "proxy.log"
FILE_BYTES: Final = 10_000_000
FILES_KEPT: Final = 5
WAITING_LINES: Final = 10_000
"""Lines kept for a writer that can't keep up; a second of one line for each request."""
_BATCH_S: Final = 0.05
"""Lines of this time are written together: one wake-up of the thread instead of one each."""
_CLOSE_S: Final = 5.0
"""How long the last lines may take; a pipe that nobody reads must not hold up the exit."""
_SHORTEST_SECRET: Final = 4
"""Masking anything shorter would garble every line and hide nothing."""
_QUIET: Final = ("httpx", "httpcore", "hpack", "hypercorn.access")
"""Libraries that log every request or every header at INFO or DEBUG."""

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
"""What every record has; the other attributes came as `extra`."""


# -- secrets -----------------------------------------------------------------------------------


class Secrets:
    """The texts that must not be written, and a way to take them out of a line."""

    def __init__(self) -> None:
        self._texts: frozenset[str] = frozenset()
        self._shortest = sys.maxsize
        self._runs = re.compile("")

    def add(self, secret: str) -> None:
        """From now on `secret` is masked: as it is, and as JSON, Python or a URL would spell it."""
        if len(secret) < _SHORTEST_SECRET:
            return
        spellings = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")}
        if spellings <= self._texts:
            return
        self._texts |= spellings
        # Where a secret is, there is a run of at least so many of the secrets' characters. Few
        # lines have one, so a line costs one scan, however many secrets there are.
        letters = "".join(re.escape(letter) for letter in sorted({*"".join(self._texts)}))
        self._shortest = min(map(len, self._texts))
        self._runs = re.compile(rf"(?<![{letters}])[{letters}]{{{self._shortest},}}")

    def masked(self, text: str) -> str:
        """`text` with `****` in place of every secret."""
        return text if len(text) < self._shortest else self._runs.sub(self._mask, text)

    def _mask(self, run: re.Match[str]) -> str:
        text = run[0]
        for secret in sorted(filter(text.__contains__, self._texts), key=len, reverse=True):
            text = text.replace(secret, "****")
        return text


_SECRETS: Final = Secrets()


def register_secret(value: str) -> None:
    """No line logged from now on shows `value`. Any thread; what is too short is ignored."""
    _SECRETS.add(value)


# -- lines -------------------------------------------------------------------------------------


Plain: TypeAlias = str | int | float | None


class Line(Protocol):
    """Turns a record's fields and its traceback, if any, into one entry of the log."""

    def __call__(self, fields: dict[str, Plain], traceback: str | None) -> str: ...


def fields_of(record: logging.LogRecord) -> dict[str, Plain]:
    """Time (UTC), level, logger and message first, then whatever was given as `extra`.

    Secrets are masked here, before any quoting could change how they are spelled.
    """
    second = _utc_second(int(record.created))
    fields: dict[str, Plain] = {
        "time": f"{second}.{int(record.created * 1000) % 1000:03d}Z",
        "level": record.levelname,
        "logger": record.name,
        "message": _SECRETS.masked(record.getMessage()),
    }
    for name, value in record.__dict__.items():
        if name not in _STANDARD:
            fields.setdefault(name, _plain(value))
    return fields


@lru_cache(maxsize=2)
def _utc_second(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _plain(value: object) -> Plain:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _SECRETS.masked(str(value))


def _traceback(record: logging.LogRecord) -> str | None:
    if not record.exc_info:
        return None
    return _SECRETS.masked(_TRACEBACKS.formatException(record.exc_info))


_TRACEBACKS: Final = logging.Formatter()


def json_line(fields: dict[str, Plain], traceback: str | None) -> str:
    """One object; nothing but printable ASCII in it."""
    if traceback is not None:
        fields["exception"] = traceback
    with suppress(ValueError):  # a lone surrogate, which UTF-8 can't spell
        line = to_json(fields)  # a quarter of what `json.dumps` costs
        if line.isascii() and b"\x7f" not in line:
            return line.decode("ascii")
    return json.dumps(fields).replace("\x7f", "\\u007f")


def text_line(fields: dict[str, Plain], traceback: str | None) -> str:
    """`key=value`, quoted where need be. No value can make a line, or a field, of its own.

    A traceback follows on lines that begin with a bar.
    """
    line = " ".join(
        [
            f"{name}={value if type(value) is int else _quoted(value)}"
            for name, value in fields.items()
        ]
    )
    if traceback is None:
        return line
    return "\n  | ".join([line, *map(_escaped, traceback.split("\n"))])


def _quoted(value: Plain) -> str:
    if not isinstance(value, str):
        return _WORDS[value] if value is None or isinstance(value, bool) else str(value)
    if _NEEDS_NO_QUOTES(value):
        return value
    return '"' + _escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


_WORDS: Final = {None: "null", True: "true", False: "false"}
_NEEDS_NO_QUOTES: Final = re.compile(r"[!#-<>-\[\]-~]+").fullmatch
"""Visible ASCII but for the double quote, the equals sign and the backslash."""


def _escaped(text: str) -> str:
    """`text` without control, direction and line-separating characters."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


# -- the writer --------------------------------------------------------------------------------


class LogWriter(logging.Handler):
    """Takes records from any thread, never waits, and drops the oldest lines rather than grow.

    `close` writes what is left; `logging` does that at exit, if nobody did before.
    """

    def __init__(
        self, line: Line, file: LogFile | None = None, *, waiting_lines: int = WAITING_LINES
    ) -> None:
        super().__init__()
        self.dropped = 0
        self._line = line
        self._file = file
        self._lines: deque[str] = deque(maxlen=waiting_lines)
        self._reported = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        # A daemon, because the interpreter waits for other threads before it runs exit functions.
        self._thread = threading.Thread(target=self._write_until_closed, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(fields_of(record), _traceback(record))
        except Exception:  # noqa: BLE001 - the text of a logged object can raise anything
            self.handleError(record)
        else:
            self._put(line)

    def write_plain(self, logger: str, message: str, fields: dict[str, Plain]) -> None:
        """An INFO line of values that can hold no secret, for what is logged very often: at a
        third of the cost, because no record is made and nothing is searched for secrets."""
        now = wall_now()
        line: dict[str, Plain] = {
            "time": f"{_utc_second(int(now))}.{int(now * 1000) % 1000:03d}Z",
            "level": "INFO",
            "logger": logger,
            "message": message,
            **fields,
        }
        self._put(self._line(line, None))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """A record that can't be formatted is reported by its template, without its arguments."""
        template = _SECRETS.masked(record.msg) if isinstance(record.msg, str) else None
        self._put(self._own_line("ERROR", "a record could not be formatted", template=template))

    def close(self) -> None:
        """Everything logged before is written, or `_CLOSE_S` are over."""
        logging.getLogger().removeHandler(self)
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_S)
        if self._file is not None:
            with suppress(OSError):  # reported when it began to fail
                self._file.close()
        super().close()

    def _put(self, line: str) -> None:
        if len(self._lines) == self._lines.maxlen:
            self.dropped += 1
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def _write_until_closed(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_BATCH_S)
            self._wake.clear()
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        dropped = self.dropped - self._reported
        if dropped:
            self._reported += dropped
            lines.append(self._own_line("WARNING", "log lines were dropped", dropped=dropped))
        if lines:
            block = "\n".join(lines)
            _write_to_stderr(block)
            if self._file is not None:
                self._file.write(block)

    def _own_line(self, level: str, message: str, **extra: object) -> str:
        record = logging.makeLogRecord(
            {"name": __name__, "levelname": level, "msg": message, **extra}
        )
        return self._line(fields_of(record), None)


class LogFile(RotatingFileHandler):
    """The file in `LOG_DIR`: mode 0600, renamed to `.1` and so on before it grows too large."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._failures = 0
        self._failing = False
        super().__init__(
            folder / FILE_NAME,
            maxBytes=FILE_BYTES,
            backupCount=FILES_KEPT,
            encoding="utf-8",
            errors="backslashreplace",
        )

    def write(self, block: str) -> None:
        """Writes many lines as one record, so that a burst costs one write.

        A failure is reported on standard error, once until it has passed; the lines are there too.
        """
        failures = self._failures
        self.emit(logging.makeLogRecord({"msg": block}))
        self._failing = self._failures > failures

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        self._failures += 1
        if not self._failing:
            _write_to_stderr(f"{self.baseFilename} can't be written: {sys.exception()}")

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=_open_private,
        )


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_to_stderr(block: str) -> None:
    with suppress(OSError, ValueError):  # closed or full: there is no place left to say so
        sys.stderr.write(block + "\n")
        sys.stderr.flush()


def writer() -> LogWriter | None:
    """What the root logger writes to, if `configure` was called."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogWriter):
            return handler
    return None


def dropped() -> int:
    """Lines that were given up since the start because the writer could not keep up."""
    current = writer()
    return 0 if current is None else current.dropped


def level() -> str:
    """The least important messages that are logged."""
    return logging.getLevelName(logging.getLogger().level)


def set_level(level: str) -> None:
    """From now on this is logged, and what is more important. `level`: one of `LEVELS`."""
    assert level in LEVELS
    # A warning, and first: the log shows from where on it is shorter than before.
    logging.getLogger(__name__).warning("the log level is %s from now on", level)
    logging.getLogger().setLevel(level)


def configure(level: str, log_format: LogFormat, folder: Path | None = None) -> LogWriter:
    """The root logger writes to standard error, and to a file in `folder` if there is one.

    The caller closes what it gets. Errors: `OSError` when the file can't be opened.
    """
    file = None if folder is None else LogFile(folder)
    writer = LogWriter(json_line if log_format == "json" else text_line, file)
    root = logging.getLogger()
    root.addHandler(writer)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Facts that no line shows; without them a record costs half ("Optimization", Logging HOWTO).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    return writer
