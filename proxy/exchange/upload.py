"""A large request body on its way through: sent on while it arrives, and kept for a second try.

What has arrived is kept in memory up to a bound and beyond it in an unnamed temporary file, so a
failed attempt can be repeated elsewhere although the client sends its body only once.
"""

from __future__ import annotations

import tempfile
from typing import IO, TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from proxy.exchange.multipart import FormField
    from proxy.exchange.ports import RequestReader

MEMORY_BYTES: Final = 1024 * 1024
READ_BYTES: Final = 256 * 1024


class Spool:
    """Bytes that were received, in order: the latest in memory, those before them in a file."""

    def __init__(self) -> None:
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._filed_bytes = 0

    @property
    def size(self) -> int:
        return self._filed_bytes + len(self._memory)

    def append(self, piece: bytes) -> None:
        """Takes `piece` into memory at once, so that no cancellation can lose it."""
        self._memory += piece

    async def relieve(self) -> None:
        """Moves what is in memory to the file if it is more than `MEMORY_BYTES`. Cancelled, it
        has changed nothing and can be called again. Errors: `OSError`."""
        if len(self._memory) > MEMORY_BYTES:
            await trio.to_thread.run_sync(self._write)
            self._filed_bytes += len(self._memory)
            self._memory = bytearray()

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._file.seek(self._filed_bytes)
        self._file.write(self._memory)

    async def read(self, position: int) -> bytes:
        """Up to `READ_BYTES` from `position`, which lies before `size`. A checkpoint if they are
        in the file."""
        if position < self._filed_bytes:
            return await trio.to_thread.run_sync(self._read, position)
        start = position - self._filed_bytes
        return bytes(self._memory[start : start + READ_BYTES])

    def _read(self, position: int) -> bytes:
        assert self._file is not None
        self._file.seek(position)
        return self._file.read(min(READ_BYTES, self._filed_bytes - position))

    def close(self) -> None:
        """Frees memory and file. Never blocks for long: the file has no name."""
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()


class Upload:
    """An `UploadBody` over a request that is still arriving."""

    def __init__(self, reader: RequestReader, length: int | None) -> None:
        self._reader = reader
        self._spool = Spool()
        self._position = 0
        self._received_all = False
        self._length = length
        self._field: FormField | None = None
        self._value = b""

    @property
    def length(self) -> int | None:
        if self._length is None or self._field is None:
            return self._length
        return self._length - (self._field.end - self._field.start) + len(self._value)

    @property
    def received_bytes(self) -> int:
        return self._spool.size

    def replace(self, field: FormField, value: str) -> None:
        """From the next `rewind` on, the field's value is sent as `value`."""
        self._field = field
        self._value = value.encode()

    def rewind(self) -> None:
        self._position = 0

    async def receive(self) -> bytes:
        """Reads one more piece from the client without sending it; b"" at the end."""
        await self._spool.relieve()
        piece = await self._reader.read_chunk()
        if piece:
            self._spool.append(piece)
        else:
            self._received_all = True
        return piece

    async def read_chunk(self) -> bytes:
        while True:  # noqa: ASYNC913 - goes round only over the few pieces of a replaced field
            position = self._position
            if position < self._spool.size:
                piece = await self._spool.read(position)
            elif self._received_all:
                return b""
            else:
                piece = await self.receive()
                if not piece:
                    return b""
            self._position += len(piece)
            piece = self._with_replacement(piece, position)
            if piece:
                return piece

    def _with_replacement(self, piece: bytes, position: int) -> bytes:
        """`piece`, which begins at `position`, with the part of the field in it exchanged.

        The new value is put in where the old one begins; the rest of the old one, in this piece
        or in later ones, is left out.
        """
        if self._field is None:
            return piece
        start, end = self._field.start, self._field.end
        if end <= position or start >= position + len(piece):
            return piece
        before = piece[: max(0, start - position)]
        after = piece[max(0, end - position) :]
        return before + (self._value if start >= position else b"") + after

    def close(self) -> None:
        self._spool.close()
