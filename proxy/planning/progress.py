"""A bar on a terminal that shows how far a rehearsal is; nothing anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import TextIO

_WIDTH: Final = 40


class Progress:
    """Redraws only when a percent is done, so that it costs nothing."""

    def __init__(self, stream: TextIO, label: str, seconds: float) -> None:
        self._stream = stream
        self._label = label
        self._seconds = max(1.0, seconds)
        self._shown = -1
        self._terminal = stream.isatty()

    def at(self, second: int) -> None:
        """So many simulated seconds are over."""
        percent = min(100, int(100 * second / self._seconds))
        if self._terminal and percent != self._shown:
            self._shown = percent
            done = "#" * (_WIDTH * percent // 100)
            self._stream.write(f"\r{self._label} [{done:<{_WIDTH}}] {percent:3d} %")
            self._stream.flush()

    def close(self) -> None:
        """Takes the bar away."""
        if self._shown >= 0:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
