"""What crosses the proxy in the heads of requests and answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.headers import (
    HOP_BY_HOP,
    MAX_CUSTOM,
    STANDARD,
    forwarded,
    header,
    is_event_stream,
    returned,
)

PLAIN = (b"accept-encoding", b"identity")

OPENAI_SDK = [
    (b"host", b"127.0.0.1:3010"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"authorization", b"Bearer sk-client"),
    (b"connection", b"keep-alive"),
    (b"content-type", b"application/json"),
    (b"content-length", b"400"),
    (b"user-agent", b"AsyncOpenAI/Python 3.54.0"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-read-timeout", b"600"),
    (b"x-stainless-retry-count", b"0"),
]


def test_of_the_official_sdks_headers_those_remain_that_describe_the_body() -> None:
    assert forwarded(OPENAI_SDK) == [
        (b"accept", b"application/json"),
        (b"content-type", b"application/json"),
        (b"user-agent", b"AsyncOpenAI/Python 3.54.0"),
        PLAIN,
    ]


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP),
        b"authorization",
        b"api-key",
        b"x-api-key",
        b"ocp-apim-subscription-key",
        b"x-admin-api-key",
        b"cookie",
        b"openai-organization",
        b"openai-project",
        b"expect",
        b"host",
        b"content-length",
        b"accept-encoding",
        b"x-request-id",
        b"x-max-wait-ms",
        b"x-forwarded-for",
        b"x-forwarded-anything",
        b"x-stainless-os",
        b"x-proxy-anything",
        b"sec-fetch-mode",
        b"cf-ray",
        b"forwarded",
        b"via",
    ],
)
def test_what_is_the_clients_own_or_this_hops_is_not_forwarded(name: bytes) -> None:
    assert forwarded([(name, b"close")]) == [PLAIN]


@pytest.mark.parametrize(
    "name", [b"openai-beta", b"aoai-evals", b"x-ms-client-request-id", b"traceparent"]
)
def test_what_the_upstream_may_understand_is_forwarded(name: bytes) -> None:
    assert forwarded([(name, b"v")]) == [(name, b"v"), PLAIN]


def test_azure_gets_at_most_ten_custom_headers_and_all_standard_ones() -> None:
    custom = [(b"x-custom-%d" % number, b"v") for number in range(MAX_CUSTOM + 3)]
    standard = [(name, b"v") for name in sorted(STANDARD)]
    junk = [(b"x-stainless-%d" % number, b"v") for number in range(20)]
    assert forwarded([*junk, *custom, *standard]) == [*custom[:MAX_CUSTOM], *standard, PLAIN]


@pytest.mark.parametrize(
    "connection",
    [
        [b"x-secret, x-other"],
        [b"close, X-Secret,x-other"],
        [b"keep-alive", b"x-secret", b"x-other"],
        [b"\tx-secret ,, x-other ,"],
    ],
)
def test_headers_that_connection_names_end_here_in_both_directions(
    connection: list[bytes],
) -> None:
    headers = [
        (b"x-secret", b"1"),
        *((b"connection", value) for value in connection),
        (b"x-other", b"2"),
        (b"x-kept", b"3"),
    ]
    assert forwarded(headers) == [(b"x-kept", b"3"), PLAIN]
    assert returned(headers, b"i", b"r")[0] == (b"x-kept", b"3")


def test_an_answer_keeps_its_headers_in_order_and_says_who_gave_it() -> None:
    azure = [
        (b"content-length", b"1000"),
        (b"content-type", b"application/json"),
        (b"x-ratelimit-remaining-tokens", b"77"),
        (b"apim-request-id", b"a"),
        (b"x-request-id", b"theirs"),
        (b"x-ms-region", b"East US 2"),
        (b"set-cookie", b"a=b"),
        (b"set-cookie", b"c=d"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"keep-alive", b"timeout=5"),
        (b"alt-svc", b'h3=":443"'),
        (b"x-proxy-instance", b"of a proxy behind this one"),
        (b"content-encoding", b"gzip"),
        (b"vary", b"a"),
        (b"vary", b"b"),
    ]
    assert returned(azure, b"one", b"ours") == [
        (b"content-type", b"application/json"),
        (b"x-ratelimit-remaining-tokens", b"77"),
        (b"apim-request-id", b"a"),
        (b"x-upstream-request-id", b"theirs"),
        (b"x-ms-region", b"East US 2"),
        (b"content-encoding", b"gzip"),
        (b"vary", b"a"),
        (b"vary", b"b"),
        (b"x-proxy-instance", b"one"),
        (b"x-request-id", b"ours"),
    ]


NAMES = st.sampled_from(
    [b"connection", b"cookie", b"authorization", b"x-a", b"x-stainless-os", b"accept", b"te"]
)
VALUES = st.sampled_from([b"close", b"x-a", b"x-a, accept", b"keep-alive", b"connection", b""])


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=30))
def test_no_mixture_gets_a_credential_or_a_hop_header_through(
    headers: list[tuple[bytes, bytes]],
) -> None:
    banned = {b"connection", b"cookie", b"authorization", b"x-stainless-os", b"te"}
    kept = forwarded(headers)
    assert kept.pop() == PLAIN
    assert not banned & {name for name, _ in kept}
    assert sum(name not in STANDARD for name, _ in kept) <= MAX_CUSTOM
    assert [pair for pair in headers if pair in kept][: len(kept)] == kept
    answered = [name for name, _ in returned(headers, b"i", b"r")]
    assert not {b"connection", b"te"} & set(answered)


def test_the_first_header_of_a_name_counts() -> None:
    assert header([(b"a", b"1"), (b"b", b"2"), (b"b", b"3")], b"b") == b"2"
    assert header([], b"b") is None


@pytest.mark.parametrize(
    ("content_type", "streams"),
    [
        (b"text/event-stream", True),
        (b"text/event-stream; charset=utf-8", True),
        (b"Text/Event-Stream ;x", True),
        (b"text/event-streams", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_an_event_stream_is_told_by_its_type(content_type: bytes, *, streams: bool) -> None:
    assert is_event_stream([(b"content-type", content_type)]) is streams
    assert not is_event_stream([])
