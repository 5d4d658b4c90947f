"""The service's side of the process that encodes texts: its life, and the turns of who needs it."""

from __future__ import annotations

import math
import os
import sys
from subprocess import PIPE
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from actors.mailbox import Reply
from proxy.tokens.encoder import ANSWER, request

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from proxy.tokens.vocabulary import EncodingName

PAUSE_S: Final = 10.0
"""From a failure to the next start, so that what always fails costs little."""
LONGEST_S: Final = 20.0
"""For one slice, with start and vocabulary: forty times what it takes on a free core."""
_LAST_S: Final = 1.0
_LAST_WORDS_BYTES: Final = 65_536

_COMMAND: Final = (sys.executable, "-P", "-m", "proxy.tokens.encoder")
_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "PYTHONHOME")
"""What an interpreter may need to start. The others may be keys."""


class _Job(NamedTuple):
    texts: Sequence[str]
    name: EncodingName
    reply: Reply[int | None]


class EncoderProcess:
    """Started when it is first needed, alive until `run` ends. `encode` is a `count.Encode`.

    If it can't be started, dies or hangs, that is logged; nobody gets a number until `PAUSE_S`
    later, and then it is started anew.
    """

    def __init__(self, log: logging.Logger, command: Sequence[str] = _COMMAND) -> None:
        self._log = log
        self._command = command
        # Without a buffer: who is cancelled while it waits leaves nothing behind.
        self._submit, self._jobs = trio.open_memory_channel[_Job](0)
        self._pause_until = -math.inf

    async def encode(self, texts: Sequence[str], name: EncodingName) -> int | None:
        """Waits its turn, then for the answer. A checkpoint; cancellation undoes nothing: what
        the process has begun it finishes.

        None for as long as there is no process, and after the end of `run`.
        """
        job = _Job(texts, name, Reply())
        try:
            await self._submit.send(job)
        except trio.BrokenResourceError:
            return None
        return await job.reply.wait()

    async def run(self) -> None:
        """Serves until cancelled; then no process is left."""
        with self._jobs:
            while True:
                job = await self._jobs.receive()
                if trio.current_time() < self._pause_until:
                    job.reply.set(None)
                    continue
                failure = await self._serve(job)
                self._pause_until = trio.current_time() + PAUSE_S
                self._log.warning(
                    "the process that counts tokens %s; input is estimated for the next %g s",
                    failure,
                    PAUSE_S,
                )

    async def _serve(self, job: _Job) -> str:
        """Answers `job` and whatever follows with one process. Returns what became of that."""
        process, failure = None, ""
        try:
            process = await trio.lowlevel.open_process(
                self._command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=_environment()
            )
            assert process.stdio is not None
            while True:
                job.reply.set(await _answer(process.stdio, job))
                job = await self._jobs.receive()
        except OSError as error:
            failure = f"can't be started: {error}"
        except trio.TooSlowError:
            failure = f"gave no answer for {LONGEST_S:g} s"
        except (trio.BrokenResourceError, EOFError):
            failure = "ended"
        finally:
            if process is not None:
                with trio.move_on_after(_LAST_S, shield=True):
                    failure += await _end(process)
            job.reply.set(None)  # too late for one that has been answered
        return failure


async def _answer(process: trio.abc.Stream, job: _Job) -> int:
    """Errors: `trio.BrokenResourceError`, `EOFError`, `trio.TooSlowError`."""
    with trio.fail_after(LONGEST_S):
        await process.send_all(request(job.texts, job.name))
        answer = bytearray()
        while len(answer) < ANSWER.size:
            piece = await process.receive_some(ANSWER.size - len(answer))
            if not piece:
                raise EOFError
            answer += piece
    tokens: int
    (tokens,) = ANSWER.unpack(answer)
    return tokens


async def _end(process: trio.Process) -> str:
    """Kills it, if it still runs: it has nothing to lose. Returns its status and the last line that
    it wrote."""
    process.kill()
    assert process.stdio is not None
    assert process.stderr is not None
    async with process.stdio, process.stderr:
        status = await process.wait()
        said = await process.stderr.receive_some(_LAST_WORDS_BYTES)
    last_line = said.decode(errors="replace").strip().rpartition("\n")[2]
    return f" (status {status}) {last_line}".rstrip()


def _environment() -> dict[str, str]:
    """What the process needs to find the modules that this one has found, and no keys."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path)}
