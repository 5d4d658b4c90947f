"""What clients are told when no instance takes their request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.messages import Refused
from proxy.exchange.refusals import refusal_error

NOW = 1000.0


def told(refused: Refused) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    error = refusal_error(refused, "gpt-4", NOW)
    return error.status, json.loads(error.body())["error"], dict(error.headers())


@pytest.mark.parametrize(
    ("refused", "status", "kind", "code", "param"),
    [
        (Refused("unknown_model"), 404, "invalid_request_error", "model_not_found", "model"),
        (Refused("input_too_long", limit=8192), 400, "invalid_request_error",
         "context_length_exceeded", "messages"),
        (Refused("too_large", limit=60_000), 429, "tokens", "rate_limit_exceeded", None),
        (Refused("saturated", NOW + 2), 429, "tokens", "rate_limit_exceeded", None),
        (Refused("overloaded", NOW + 1), 429, "tokens", "rate_limit_exceeded", None),
        (Refused("unavailable"), 503, "server_error", "no_instance_available", None),
    ],
)  # fmt: skip
def test_each_reason_has_its_answer(
    refused: Refused, status: int, kind: str, code: str, param: str | None
) -> None:
    found, error, _ = told(refused)
    assert found == status
    assert error.pop("message")
    assert error == {"type": kind, "code": code, "param": param}


def test_numbers_that_help_are_in_the_text() -> None:
    assert "8192" in told(Refused("input_too_long", limit=8192))[1]["message"]
    assert "60000" in told(Refused("too_large", limit=60_000))[1]["message"]
    assert "2.250 seconds" in told(Refused("saturated", NOW + 2.25))[1]["message"]


@pytest.mark.parametrize(
    ("refused", "retry_after_ms", "retry_after", "worthwhile"),
    [
        (Refused("saturated", NOW + 2.0004), b"2001", b"3", b"true"),
        (Refused("saturated", NOW + 120), b"120000", b"120", b"true"),
        # The official SDKs wait no longer than two minutes.
        (Refused("saturated", NOW + 121), b"121000", b"121", b"false"),
        (Refused("saturated"), b"1000", b"1", b"true"),
        (Refused("saturated", NOW - 5), b"1", b"1", b"true"),
        (Refused("unavailable"), b"5000", b"5", b"true"),
        (Refused("unavailable", NOW + 30), b"30000", b"30", b"true"),
        (Refused("unavailable", NOW + 3600), b"3600000", b"3600", b"false"),
        (Refused("too_large", limit=5), None, None, b"false"),
        (Refused("unknown_model"), None, None, None),
        (Refused("input_too_long", limit=5), None, None, None),
    ],
)
def test_when_to_come_back_is_told_in_both_ways_and_never_too_early(
    refused: Refused,
    retry_after_ms: bytes | None,
    retry_after: bytes | None,
    worthwhile: bytes | None,
) -> None:
    _, _, headers = told(refused)
    assert headers.get(b"retry-after-ms") == retry_after_ms
    assert headers.get(b"retry-after") == retry_after
    assert headers.get(b"x-should-retry") == worthwhile
