"""Bodies that are sent on as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    pass


class Upload:
    """A body in pieces. `gates` and `pauses_s` hold it up: when how many pieces are left."""

    def __init__(self, *pieces: bytes | Exception, length: int | None = None) -> None:
        self.pieces = pieces
        self.length = length
        self.rewound = 0
        self.left: list[bytes | Exception] = []
        self.gates: dict[int, trio.Event] = {}
        self.pauses_s: dict[int, float] = {}

    def rewind(self) -> None:
        self.rewound += 1
        self.left = list(self.pieces)

    async def read_chunk(self) -> bytes:
        await trio.sleep(self.pauses_s.get(len(self.left), 0))
        gate = self.gates.get(len(self.left))
        if gate is not None:
            await gate.wait()
        if not self.left:
            return b""
        piece = self.left.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece
