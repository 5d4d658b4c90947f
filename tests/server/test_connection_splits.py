"""The same bytes give the same result, however they arrive."""

from __future__ import annotations

import itertools
import re
from functools import partial

import pytest
import trio
from engine import FakeHost, ScriptedExchange, chunked, echo, get, post, read_answers, talk
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.server.limits import Limits

CONVERSATIONS = {
    "one": post(b"hello"),
    "pipelined": post(b"one") + chunked(b"t", b"wo", trailer=b"a: b\r\n") + get() + post(b"3" * 50),
    "handed over": post(b"one") + get("/page") + b"rest",
    "refused later": chunked(b"abc") + get("/v1/x", b"a : b"),
    "bare lf": post(b"x").replace(b"\r\n", b"\n"),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest",
    "closing": get("/v1/x", b"connection: close") + get(),
    "smuggled": post(
        b"0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n", "/v1/x", b"transfer-encoding: chunked"
    ),
    "bad chunk": chunked(b"abc").replace(b"abc\r\n", b"abcd\n") + get(),
    "too many headers": get("/v1/x", *[b"a:"] * 30),
    "too large": get("/v1/x", b"a: " + b"b" * 300),
}
LIMITS = Limits(header_count=20, head_bytes=300)


async def outcome(pieces: list[bytes]) -> tuple[bytes, list, list[bytes]]:
    """What the client, the exchange and the other server got."""
    host = FakeHost(ScriptedExchange(echo), LIMITS)
    answer = re.sub(rb"date: [^\r]*", b"date: then", await talk(pieces, host=host))
    return answer, host.exchange.received, host.taken_over


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_byte_by_byte(name: str, autojump_clock):
    data = CONVERSATIONS[name]
    whole = await outcome([data])
    assert await outcome([data[index : index + 1] for index in range(len(data))]) == whole


@given(st.sampled_from(sorted(CONVERSATIONS)), st.lists(st.integers(0, 400), max_size=4))
@settings(max_examples=150, deadline=None)
def test_cut_anywhere(name: str, places: list[int]):
    clock = partial(trio.testing.MockClock, autojump_threshold=0)
    data = CONVERSATIONS[name]
    whole = trio.run(outcome, [data], clock=clock())
    assert trio.run(outcome, cut(data, places), clock=clock()) == whole


async def test_the_conversations_are_what_their_names_say(autojump_clock):
    statuses = {
        "one": [200],
        "pipelined": [200] * 4,
        "handed over": [200],
        "refused later": [200, 400],
        "bare lf": [400],
        "http/2": [],
        "closing": [200],
        "smuggled": [400],
        "bad chunk": [400],
        "too many headers": [431],
        "too large": [431],
    }
    for name, data in CONVERSATIONS.items():
        answer, _, taken_over = await outcome([data])
        answers = read_answers(answer, *["GET"] * len(statuses[name])) if answer else []
        assert [one.status for one in answers] == statuses[name], name
        assert bool(taken_over) == (name in ("handed over", "http/2"))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=3))
@settings(max_examples=150, deadline=None)
def test_rubbish_is_refused_or_left_unanswered(rubbish: bytes, places: list[int]):
    """Never an exception, never a request out of nothing."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    data = b"POST /v1/x HTTP/1.1\r\nhost: x\r\n" + rubbish
    answer, _, _ = trio.run(outcome, cut(data, places), clock=clock)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200"))
