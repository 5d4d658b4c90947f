"""What upstreams' outcomes mean, with the bodies that Azure sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from azure_errors import (
    BACKEND,
    FILTERED,
    INVALID_KEY,
    KEYS_DISABLED,
    NO_CAPACITY,
    NO_DEPLOYMENT,
    NO_ROLE,
    NOT_SUPPORTED,
    OLD_VERSION,
    PTU_FULL,
    RATE_LIMIT,
    SECRET,
    TOO_LONG,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange import classify
from proxy.exchange.ports import FailureKind, Phase, UpstreamFailure

NOW = 1_795_000_000.0


def judged(
    status: int, error: Any = None, headers: list[tuple[bytes, bytes]] | None = None, **more: Any
) -> classify.Verdict:
    body = error if isinstance(error, bytes) else json.dumps({"error": error}).encode()
    return classify.answer(status, headers or [], body, wall_now=NOW, latency_s=1.0, **more)


@pytest.mark.parametrize(
    ("status", "error", "kind", "elsewhere", "exclude"),
    [
        (400, FILTERED, "client_error", False, False),
        (400, TOO_LONG, "client_error", False, False),
        (400, NOT_SUPPORTED, "client_error", False, False),
        (400, {"code": "invalid_encrypted_content"}, "client_error", False, False),
        (400, OLD_VERSION, "model_error", True, True),
        (401, INVALID_KEY, "credential_error", True, True),
        (401, NO_ROLE, "credential_error", True, True),
        (401, b'{"statusCode": 401, "message": "Unauthorized"}', "credential_error", True, True),
        (402, {"message": "Insufficient Balance"}, "credential_error", True, True),
        (403, KEYS_DISABLED, "credential_error", True, True),
        (404, NO_DEPLOYMENT, "model_error", True, True),
        (404, {**NO_DEPLOYMENT, "type": "invalid_request_error"}, "model_error", True, True),
        (404, {"code": "model_not_found"}, "model_error", True, True),
        (404, {"code": "404", "message": "Resource not found"}, "unsupported", True, True),
        (404, b'{"statusCode": 404, "message": "Resource not found"}', "unsupported", True, True),
        (404, {"code": "not_found", "message": "No such file"}, "client_error", False, False),
        (408, {"code": "Timeout", "message": "The operation was timeout."}, "instance_error", True,
         True),
        (409, {"code": "conflict"}, "instance_error", True, True),
        (413, b"<html>Request Entity Too Large</html>", "client_error", False, False),
        (415, None, "client_error", False, False),
        (422, b'{"detail":[{"loc":["body"]}]}', "client_error", False, False),
        (429, RATE_LIMIT, "rate_limited", True, False),
        (429, PTU_FULL, "rate_limited", True, False),
        (429, NO_CAPACITY, "rate_limited", True, False),
        (429, b"", "rate_limited", True, False),
        (431, None, "client_error", False, False),
        (500, BACKEND, "instance_error", True, True),
        (500, {"type": "server_error", "code": "server_error"}, "instance_error", True, True),
        (502, b"\xff\xfe not json", "instance_error", True, True),
        (503, b"", "instance_error", True, True),
        (599, b"", "instance_error", True, True),
        (301, b"", "instance_error", True, True),
        (307, b"<html>", "instance_error", True, True),
    ],
)  # fmt: skip
def test_each_known_answer_has_one_meaning(
    status: int, error: Any, kind: str, *, elsewhere: bool, exclude: bool
) -> None:
    verdict = judged(status, error)
    outcome = verdict.outcome
    assert (outcome.kind, verdict.elsewhere, verdict.exclude) == (kind, elsewhere, exclude)
    assert (outcome.status, outcome.reached, outcome.latency_s) == (status, True, 1.0)


def test_a_rate_limit_brings_its_hint_from_wherever_it_was_told() -> None:
    assert judged(429, RATE_LIMIT).outcome.bench_s == 20.0
    assert judged(429, PTU_FULL, [(b"retry-after-ms", b"500")]).outcome.bench_s == 0.5
    assert judged(429, RATE_LIMIT | {"message": ""}).outcome.bench_s is None
    assert judged(429, NO_CAPACITY).outcome.bench_s == 2.0
    assert judged(429, PTU_FULL).outcome.bench_s == 1.0
    assert judged(503, None, [(b"retry-after", b"5")]).outcome.bench_s == 5.0
    assert judged(400, None, [(b"retry-after", b"5")]).outcome.bench_s is None
    told_in_event = {**NO_CAPACITY, "headers": {"Retry-After-Ms": "1500", "x": None}}
    assert judged(429, told_in_event).outcome.bench_s == 1.5
    assert judged(429, {**NO_CAPACITY, "headers": {"retry-after": 3}}).outcome.bench_s == 3.0
    assert judged(429, {**NO_CAPACITY, "headers": ["odd"]}).outcome.bench_s == 2.0


def test_a_rate_limit_says_which_limit_it_was_if_that_was_said() -> None:
    assert judged(429, RATE_LIMIT).outcome.limit == "tokens"
    calls = {**RATE_LIMIT, "message": RATE_LIMIT["message"].replace("token rate", "call rate")}
    assert judged(429, calls).outcome.limit == "requests"
    nothing_left = [(b"x-ratelimit-remaining-tokens", b"0")]
    assert judged(429, NO_CAPACITY, nothing_left).outcome.limit is None
    assert judged(429, PTU_FULL, nothing_left).outcome.limit is None
    assert judged(429, b"", [(b"x-ratelimit-remaining-tokens", b"0")]).outcome.limit == "tokens"
    assert judged(503, RATE_LIMIT).outcome.limit is None


def test_the_reason_is_short_and_holds_no_key() -> None:
    assert judged(401, INVALID_KEY).outcome.reason.startswith("401 401: Access denied due to")
    assert judged(503, b"").outcome.reason == "503"
    assert judged(500, {"code": 7, "message": {"odd": 1}}).outcome.reason == "500 7"
    quoting = {"message": "Incorrect API key provided: sk-secret. " + "x" * 500}
    reason = judged(401, quoting, secret=b"sk-secret").outcome.reason
    assert reason.startswith("401: Incorrect API key provided: ***. ")
    assert len(reason) == classify.MAX_REASON
    # A key that would be cut in the middle is not shown in part either.
    quoting = {"message": "x" * (classify.MAX_REASON - 8) + "sk-secret"}
    assert "sk" not in judged(401, quoting, secret=b"sk-secret").outcome.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TOO_LONG, "400 context_length_exceeded: messages"),
        (FILTERED, "400 content_filter: prompt"),
        ({"message": SECRET, "code": "invalid_value", "param": "messages[0].content"},
         "400 invalid_value: messages[0].content"),
        ({"message": SECRET, "code": None, "param": None}, "400"),
        ({"message": "m", "code": SECRET, "param": SECRET}, "400"),
        ({"message": "m", "code": "c" * 200, "param": ["p"]}, "400"),
        (f"{SECRET}".encode(), "400"),
    ],
)  # fmt: skip
def test_the_reason_of_a_clients_mistake_quotes_nothing_of_its_request(
    error: dict[str, Any] | bytes, reason: str
) -> None:
    assert judged(400, error).outcome.reason == reason


@pytest.mark.parametrize(
    ("phase", "kind", "answered", "reached"),
    [
        ("connect", "refused", False, False),
        ("connect", "timeout", False, False),
        ("connect", "tls", False, False),
        ("connect", "dns", False, False),
        # From here on the upstream may have read the request, and charged for it.
        ("send", "reset", False, True),
        ("send", "timeout", False, True),
        ("head", "timeout", False, True),
        ("head", "reset", True, True),
        ("body", "reset", True, True),
        ("body", "timeout", True, True),
    ],
)
def test_a_broken_exchange_is_the_instances_fault_and_free_only_if_nothing_was_sent(
    phase: Phase, kind: FailureKind, *, answered: bool, reached: bool
) -> None:
    failure = UpstreamFailure(phase, kind, "what happened " * 50, answered=answered)
    verdict = classify.failure(failure, latency_s=2.0)
    assert (verdict.elsewhere, verdict.exclude) == (True, True)
    assert verdict.outcome.kind == "instance_error"
    assert verdict.outcome.reached is reached
    assert verdict.outcome.reason.startswith(f"{phase}: what happened")
    assert len(verdict.outcome.reason) <= classify.MAX_REASON


def test_an_instance_without_its_key_is_as_good_as_refused() -> None:
    verdict = classify.keyless("environment variable X is not set")
    assert (verdict.elsewhere, verdict.exclude) == (True, True)
    assert verdict.outcome.kind == "credential_error"
    assert verdict.outcome.reached is False


@pytest.mark.parametrize(
    ("status", "body", "rejects"),
    [
        (400, b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}', 1),
        (422, b'{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}', 1),
        (400, json.dumps({"error": FILTERED}).encode(), 0),
        (500, b"stream_options", 0),
        (200, b"stream_options", 0),
    ],
)
def test_an_upstream_that_does_not_know_stream_options_says_so(
    status: int, body: bytes, rejects: int
) -> None:
    assert classify.rejects_stream_options(status, body) is bool(rejects)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error":{"code":"x"}}', {"code": "x"}),
        (b'{"error":"text"}', {"message": "text"}),
        (b'{"statusCode":401,"message":"m"}', {"statusCode": 401, "message": "m"}),
        (b'{"error":null}', {}),
        (b'{"error":[1]}', {}),
        (b"[1]", {}),
        (b"", {}),
        (b"\xff", {}),
        (b"[" * 100_000, {}),
    ],
)
def test_errors_are_found_in_all_their_shapes(body: bytes, error: dict[str, Any]) -> None:
    assert classify.error_object(body) == error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"type": "server_error", "code": "server_error"}, 500),
        ({"type": "too_many_requests", "code": "no_capacity"}, 429),
        ({"type": "too_many_requests", "code": None}, 429),
        ({"type": "forbidden"}, 403),
        ({"type": "user_error", "code": "odd"}, 400),
        ({"code": "rate_limit_exceeded"}, 429),
        ({"code": "rate_limit_reached"}, 429),
        ({"code": "content_filter"}, 400),
        ({"code": "invalid_prompt", "message": "…"}, 400),
        ({"code": "image_parse_error"}, 400),
        ({"code": 429, "type": "Odd"}, 429),
        ({"code": "503"}, 503),
        ({"code": 200}, 500),
        ({"code": 1234}, 500),
        ({"code": {"odd": 1}, "type": ["odd"]}, 500),
        ({}, 500),
    ],
)
def test_an_error_in_a_stream_is_the_status_that_it_would_have_been(
    error: dict[str, Any], status: int
) -> None:
    found, _, body = classify.stream_error(error)
    assert found == status
    assert json.loads(body) == {"error": error}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
ERRORS = st.dictionaries(st.sampled_from(["code", "type", "message", "headers"]), JSON)


@settings(deadline=None)
@given(
    st.integers(300, 999),
    st.binary(max_size=50)
    | ERRORS.map(lambda error: json.dumps({"error": error}).encode())
    | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_no_answer_is_beyond_judgement(status: int, body: bytes) -> None:
    verdict = classify.answer(status, [], body, wall_now=NOW, latency_s=0.1)
    assert len(verdict.outcome.reason) <= classify.MAX_REASON
    assert verdict.exclude <= verdict.elsewhere
    assert (verdict.outcome.kind == "client_error") == (not verdict.elsewhere)


@settings(deadline=None)
@given(ERRORS)
def test_no_stream_error_is_beyond_judgement(error: dict[str, Any]) -> None:
    status, *_ = classify.stream_error(error)
    assert 400 <= status < 600
