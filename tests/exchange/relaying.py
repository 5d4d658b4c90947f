"""A relay with a fake answer and a fake writer."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from fakes import FakeAnswer, FakeWriter

from proxy.exchange.ports import Headers, UpstreamFailure
from proxy.exchange.record import RequestRecord
from proxy.exchange.relay import CutShort, Relay
from proxy.exchange.usage import Usage

ERROR = {"error": {"code": "no_capacity", "type": "too_many_requests", "message": "m"}}
PLAIN: Headers = [(b"content-type", b"application/json")]


def whole_answer(*pieces: bytes, failure: UpstreamFailure | None = None) -> FakeAnswer:
    length = (b"content-length", b"%d" % sum(map(len, pieces)))
    return FakeAnswer(headers=[*PLAIN, length], pieces=pieces, failure=failure)


def relaying(answer: FakeAnswer) -> tuple[Relay, FakeWriter]:
    writer = FakeWriter()
    record = RequestRecord("id", trio.current_time(), instance="one")
    return Relay(answer, writer, record), writer


async def streamed(answer: FakeAnswer, **options: Any) -> tuple[FakeWriter, Usage | None]:
    relay, writer = relaying(answer)
    usage = await relay.stream(**{"drop_usage": False, **options})
    return writer, usage


async def cut_short(answer: FakeAnswer, **options: Any) -> tuple[FakeWriter, CutShort]:
    relay, writer = relaying(answer)
    with pytest.raises(CutShort) as caught:
        await relay.stream(**{"drop_usage": False, **options})
    assert writer.finished
    assert not writer.aborted
    return writer, caught.value


def last_event(writer: FakeWriter) -> dict[str, Any]:
    event = writer.body.rstrip(b"\n").split(b"\n\n")[-1]
    assert event.startswith(b"event: error\ndata: ")
    data: dict[str, Any] = json.loads(event.split(b"data: ")[1])
    return data
