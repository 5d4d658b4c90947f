"""One connection to an upstream, carrying one exchange at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

import trio

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.answer import Answer
from proxy.upstream.failure import failure
from proxy.upstream.upload import Upload

if TYPE_CHECKING:
    from proxy.exchange.ports import Phase, UploadBody
    from proxy.upstream.link import Link
    from proxy.upstream.watch import Watch

JOIN_BYTES: Final = 65_536
"""Up to this size copying head and body together is cheaper than a second system call."""
AHEAD_BYTES: Final = 1024 * 1024
"""How much of an answer's body is taken while its request is still being sent; as much as is kept
in memory of a large request."""


class Owner(Protocol):
    """Whoever counts the connection."""

    def give_back(self, connection: Connection) -> None:
        """The exchange is complete. Never blocks."""
        ...

    def drop(self, connection: Connection) -> None:
        """The connection is of no further use; closes it. Idempotent; never blocks."""
        ...


class Connection:
    """Waiting ends in three ways: something arrives, the task is cancelled, or the watch closes
    the connection because `deadline` has passed, which the waiting task sees as a timeout.

    `started`: when the exchange began, on trio's clock, and as much later as the client has been
    waited for since: its time is not the upstream's.

    Whoever gets an exception from here must drop the connection.
    """

    __slots__ = (
        "_link", "_suspended", "_watch", "answer", "closed", "deadline", "expired", "idle", "owner",
        "started",
    )  # fmt: skip

    def __init__(self, link: Link, owner: Owner, watch: Watch) -> None:
        self.answer = Answer()
        self.owner = owner
        self.deadline = math.inf
        self.started = 0.0
        self.idle = False
        self.expired = False
        self.closed = False
        self._link = link
        self._watch = watch
        watch.add(self)

    async def request(self, method: str, head: bytes, body: bytes | UploadBody) -> None:
        """Sends a request; the head of its answer is in `answer` afterwards.

        What does not leave at once is sent while the answer is awaited: an upstream that refuses
        a large body may say so early and read no further. Errors: `UpstreamFailure`, and
        whatever reading `body` raises.
        """
        self.answer.expect(method)
        upload = None
        if not isinstance(body, bytes):
            body.rewind()
            upload, body = body, b""
        try:
            sent = self._write(head, body)
        except (OSError, trio.ClosedResourceError) as error:
            await self._read_last_words(self._failure("send", error))
            return
        if sent and upload is None:
            await self._read_head()
        else:
            await self._converse(Upload(self._link, upload, self))

    def _write(self, head: bytes, body: bytes) -> bool:
        if len(body) <= JOIN_BYTES:
            return self._link.write(head + body)
        sent = self._link.write(head)
        return self._link.write(body) and sent

    async def _read_head(self) -> None:
        answer = self.answer
        while not answer.head_complete:
            await self._receive("head")
            if answer.failed is not None and not answer.head_complete:
                raise UpstreamFailure("head", *answer.failed, answered=answer.started)

    async def _read_last_words(self, unsent: UpstreamFailure) -> None:
        """Sending failed; perhaps the upstream said why before it closed."""
        try:
            await self._read_head()
        except UpstreamFailure as error:
            raise (error if error.answered else unsent) from error
        self.answer.keep = False

    async def _converse(self, upload: Upload) -> None:
        """Reads the answer while `upload` runs; the head is there afterwards, and all is sent.

        A refusal ends the upload, as does an answer that is complete or broken: whatever is sent
        after it can't change it.
        """
        answer = self.answer
        unanswered: UpstreamFailure | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload.run, nursery.cancel_scope)
            try:
                await self._read_head()
                if answer.status < 300:
                    with upload.under_way:
                        await self._read_ahead()
            except UpstreamFailure as error:
                unanswered = error
            if unanswered is not None or answer.status >= 300 or answer.complete or answer.failed:
                nursery.cancel_scope.cancel()
        if upload.body_error is not None:
            raise upload.body_error
        if upload.complete and unanswered is None:
            return
        answer.keep = False
        if self.expired and not upload.complete:
            raise UpstreamFailure("send", "timeout", "not sent in time", answered=answer.started)
        if unanswered is None:
            return
        if upload.complete or unanswered.answered:
            raise unanswered
        raise UpstreamFailure("send", unanswered.kind, unanswered.detail) from unanswered

    async def _read_ahead(self) -> None:
        """Reads the body up to a bound, for an upstream that writes before it has read all."""
        answer = self.answer
        room = AHEAD_BYTES
        while room > 0 and not answer.complete and answer.failed is None:
            room -= await self._receive("body")

    def suspend(self) -> None:
        """The client is waited for: until `resume` nothing expires. Never blocks."""
        self._suspended = (trio.current_time(), self.deadline)
        self.deadline = math.inf

    def resume(self) -> None:
        """`deadline` and `started` are as much later as that took. Never blocks."""
        since, deadline = self._suspended
        waited_s = trio.current_time() - since
        self.started += waited_s
        self._watch.set_deadline(self, deadline + waited_s)

    async def read_piece(self, silence_s: float, ends_at: float) -> bytes:
        """The next piece of the body; b"" once it is complete.

        Errors: `UpstreamFailure`, after all pieces that came before the fault, and when none
        comes for `silence_s` or until `ends_at`. A wait that was cancelled may be taken up
        again; its silence goes on.
        """
        answer = self.answer
        if self.deadline == math.inf:
            self._watch.set_deadline(self, min(trio.current_time() + silence_s, ends_at))
        while True:
            if answer.failed is not None:
                raise UpstreamFailure("body", *answer.failed, answered=True)
            await self._receive("body")
            data = answer.take()
            if data or answer.complete:
                self.deadline = math.inf
                return data

    async def _receive(self, phase: Phase) -> int:
        """Passes on what arrives; how many bytes that was."""
        try:
            data = await self._link.receive()
        except (OSError, trio.ClosedResourceError) as error:
            raise self._failure(phase, error) from error
        if data:
            self.answer.feed(data)
        else:
            self.answer.end()
        return len(data)

    def _failure(self, phase: Phase, error: Exception) -> UpstreamFailure:
        answered = self.answer.started
        if self.expired:
            return UpstreamFailure(phase, "timeout", "nothing came in time", answered=answered)
        return failure(phase, error, answered=answered)

    def readable(self) -> bool:
        """Whether something has arrived: on an idle connection only its end, or what nobody
        asked for."""
        return self._link.readable()

    def expire(self) -> None:
        self.expired = True
        self.owner.drop(self)

    def close(self) -> None:
        """Ends it at once, whatever it is doing. Never blocks."""
        self.closed = True
        self._watch.discard(self)
        self._link.close()
        self.answer.discard()
