"""What is read of an upstream's error, and what of it is fit to be shown."""

from __future__ import annotations

import gzip
import zlib

import pytest
from bound_bench import BoundBench
from fakes import FakeAnswer, FakeUpstream
from harness import instance_config, running_system

from proxy.bound.owners import Owners
from proxy.exchange.error_answer import MAX_ERROR_BYTES, ErrorAnswer, read_error
from proxy.exchange.ports import UpstreamFailure

KEY = b"key-of-one-0123456789"
TEXT = b'{"error":{"message":"not with %b"}}' % KEY
MASKED = TEXT.replace(KEY, b"***")
JSON = (b"content-type", b"application/json")


def mask(text: bytes) -> bytes:
    return text.replace(KEY, b"***")


async def read(answer: FakeAnswer) -> ErrorAnswer:
    return await read_error(answer, mask)


@pytest.mark.parametrize(
    ("coding", "coded"),
    [(b"gzip", gzip.compress(TEXT)), (b"deflate", zlib.compress(TEXT)), (b"identity", TEXT)],
)
async def test_a_coded_body_is_masked_in_plain_text(coding: bytes, coded: bytes) -> None:
    answer = FakeAnswer(400, [JSON, (b"content-encoding", coding)], [coded[:9], coded[9:]])
    status, headers, body = await read(answer)
    assert (status, body) == (400, MASKED)
    assert (b"content-encoding", b"gzip") not in headers


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip"])
async def test_a_body_that_nobody_can_read_is_left_out(coding: bytes) -> None:
    answer = FakeAnswer(400, [JSON, (b"content-encoding", coding)], [TEXT])
    assert await read(answer) == ErrorAnswer(400, [JSON], b"")


async def test_what_is_not_in_its_coding_is_left_out() -> None:
    answer = FakeAnswer(400, [JSON, (b"content-encoding", b"gzip")], [TEXT])
    assert await read(answer) == ErrorAnswer(400, [JSON], b"")


async def test_a_key_in_pieces_and_in_a_header_is_masked() -> None:
    answer = FakeAnswer(
        403, [JSON, (b"x-debug", b"used " + KEY)], [TEXT[:30], TEXT[30:40], TEXT[40:]]
    )
    assert await read(answer) == ErrorAnswer(403, [JSON, (b"x-debug", b"used ***")], MASKED)


async def test_of_a_broken_answer_there_is_what_had_come() -> None:
    broken = UpstreamFailure("body", "reset", "reset", answered=True)
    assert await read(FakeAnswer(500, [JSON], [TEXT], broken)) == ErrorAnswer(500, [JSON], MASKED)


async def test_of_a_long_answer_there_is_the_beginning() -> None:
    plain = await read(FakeAnswer(500, [JSON], [b"x" * 65536] * 20))
    assert len(plain.body) == MAX_ERROR_BYTES
    bomb = gzip.compress(b"x" * (64 * MAX_ERROR_BYTES))
    coded = await read(FakeAnswer(500, [(b"content-encoding", b"gzip")], [bomb]))
    assert len(coded.body) == MAX_ERROR_BYTES


CODED = FakeAnswer(
    400, [JSON, (b"content-encoding", b"gzip"), (b"x-debug", KEY)], [gzip.compress(TEXT)]
)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "chat/completions"), ("GET", "files/file-1"), ("GET", "files")]
)
async def test_a_client_never_sees_the_key(method: str, path: str) -> None:
    """Whether the answer is to its own request or to a question of the proxy's."""
    configs = [instance_config(name, api_key=KEY.decode()) for name in ("one", "two")]
    async with running_system(*configs) as system:
        bench = BoundBench(system, FakeUpstream(one=CODED, two=CODED), Owners(10))
        body = {"model": "gpt-4", "messages": []} if method == "POST" else None
        answer = await bench.ask(method, f"/v1/{path}", body)
        assert answer.status == 400
        assert answer.body == MASKED
        assert answer.header(b"x-debug") == b"***"
