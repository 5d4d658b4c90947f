"""Rate limits as a client sees them: headers, hints and the bodies of a 429."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest
from simulator_calls import (
    HELLO,
    chat,
    deployment,
    error,
    finish,
    headers_of,
    post,
    resource,
    sse_events,
    v1,
    whole_body,
)

from actors.clock import WallClock
from proxy.simulator.deployment import provisioned_limits
from proxy.simulator.limiter import Limits

if TYPE_CHECKING:
    from proxy.simulator.call import Answer

HINTS = ("retry-after-ms", "retry-after", "x-ratelimit-reset-tokens", "x-rate-limit-reset-tokens")


def refused(**changes: Any) -> Answer:
    """The answer to a second call 19 seconds after one that has used up the minute."""
    sim = resource(deployment(limits=Limits(tpm=1000), **changes))
    assert chat(sim, max_tokens=980, now=1).status == 200
    answer = chat(sim, max_tokens=980, now=20)
    assert answer.status == 429
    return answer


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (
            "full",
            {
                "x-ratelimit-limit-requests": "6",
                "x-ratelimit-limit-tokens": "1000",
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-remaining-tokens": "892",
            },
        ),
        (
            "remaining",
            {
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-remaining-tokens": "892",
            },
        ),
        (
            "unknown",
            {
                "x-ratelimit-limit-requests": "-1",
                "x-ratelimit-limit-tokens": "-1",
                "x-ratelimit-remaining-requests": "-1",
                "x-ratelimit-remaining-tokens": "-1",
                "x-ratelimit-reset-requests": "0",
                "x-ratelimit-reset-tokens": "0",
            },
        ),
        ("none", {}),
    ],
)
def test_header_modes(mode: Any, expected: dict[str, str]) -> None:
    sim = resource(deployment(limits=Limits(tpm=1000), headers=mode))
    headers = headers_of(chat(sim, max_tokens=100))
    assert {name: value for name, value in headers.items() if "ratelimit" in name} == expected


def test_what_has_no_limit_has_no_header() -> None:
    sim = resource(deployment(limits=Limits(tpm=1000, rpm=0)))
    names = {name for name in headers_of(chat(sim)) if "ratelimit" in name}
    assert names == {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens"}


def test_a_hint_is_not_contradicted_by_the_other_headers() -> None:
    answer = refused(hint="reset", headers="unknown")
    resets = [value for name, value in answer.headers if name == b"x-ratelimit-reset-tokens"]
    assert resets == [b"40"]


def test_a_call_without_a_limit_is_charged_what_the_service_assumes() -> None:
    sim = resource(deployment(limits=Limits(tpm=1000), assumed_output_tokens=16))
    assert headers_of(chat(sim))["x-ratelimit-remaining-tokens"] == str(1000 - 8 - 16)


def test_the_limiters_estimate_of_a_prompt_may_be_off() -> None:
    sim = resource(deployment(limits=Limits(tpm=1000), prompt_factor=2.0))
    prompt = [{"role": "user", "content": "x" * 400}]
    headers = headers_of(chat(sim, messages=prompt, max_tokens=10))
    assert headers["x-ratelimit-remaining-tokens"] == str(1000 - 200 - 6 - 10)


@pytest.mark.parametrize(
    ("hint", "expected", "told"),
    [
        ("ms", {"retry-after-ms": "40000", "retry-after": "40"}, "40 seconds"),
        ("s", {"retry-after": "40"}, "40 seconds"),
        ("day", {"retry-after": "86400"}, "86400 seconds"),
        ("reset", {"x-ratelimit-reset-tokens": "40"}, None),
        ("odd", {"x-rate-limit-reset-tokens": "40"}, None),
        ("body", {}, "40 seconds"),
        ("none", {}, None),
    ],
)
def test_hint_modes(hint: Any, expected: dict[str, str], told: str | None) -> None:
    answer = refused(hint=hint)
    headers = headers_of(answer)
    assert {name: headers[name] for name in HINTS if name in headers} == expected
    message = error(answer)["message"]
    assert (f"Please retry after {told}" in message) if told else ("retry" not in message)


def test_a_hint_as_a_date_is_a_time_of_the_wall_clock() -> None:
    sim = resource(
        deployment(limits=Limits(tpm=1000), hint="date"), wall=WallClock(1_800_000_000.0)
    )
    chat(sim, max_tokens=990)
    when = headers_of(chat(sim, max_tokens=990, now=30))["retry-after"]
    assert parsedate_to_datetime(when).timestamp() == 1_800_000_060


@pytest.mark.parametrize(
    ("style", "code", "begins"),
    [
        ("classic", "429", "Requests to the ChatCompletions_Create Operation under Azure OpenAI"),
        ("gateway", "RateLimitReached", "Your requests to gpt-4o for gpt-4o in East US have"),
        ("capacity", "no_capacity", "The system is currently experiencing high demand"),
        ("stream", "RateLimitReached", "Your requests to gpt-4o"),
    ],
)
def test_bodies_of_a_429(style: Any, code: str, begins: str) -> None:
    body = error(refused(refusal=style))
    assert body["code"] == code
    assert body["message"].startswith(begins)
    if style != "capacity":
        assert "exceeded token rate limit" in body["message"].replace("the token", "token")


def test_a_429_says_which_limit_it_was() -> None:
    sim = resource(deployment(limits=Limits(tpm=10_000, rpm=1), hint="reset"))
    chat(sim)
    answer = chat(sim, now=30)
    assert "call rate limit" in error(answer)["message"]
    assert headers_of(answer)["x-ratelimit-reset-requests"] == "30"


def test_the_plain_dialect_refuses_as_openai_does() -> None:
    sim = resource(deployment(limits=Limits(tpm=1000)))
    bearer = ((b"authorization", b"Bearer simulated-key"),)
    body = {**HELLO, "model": "gpt-4o", "max_tokens": 990}
    post(sim, "/v1/chat/completions", body, query=b"", headers=bearer)
    answer = post(sim, "/v1/chat/completions", body, query=b"", headers=bearer, now=30.5)
    assert (answer.status, error(answer)["code"]) == (429, "rate_limit_exceeded")
    assert error(answer)["type"] == "tokens"
    assert headers_of(answer)["retry-after-ms"] == "29500"
    assert headers_of(answer)["x-ratelimit-reset-tokens"] == "29.5s"


def test_a_refusal_inside_a_chat_stream_comes_after_its_preamble() -> None:
    sim = resource(deployment(limits=Limits(tpm=1000), refusal="stream", preamble_events=2))
    chat(sim, max_tokens=990)
    answer = chat(sim, max_tokens=990, stream=True, now=30)
    assert (answer.status, headers_of(answer)["retry-after"]) == (200, "30")
    filtered, role, failure = sse_events(whole_body(answer))
    assert filtered[1]["prompt_filter_results"]
    assert role[1]["choices"][0]["delta"]["role"] == "assistant"
    assert failure[0] == "error"
    assert failure[1]["error"]["type"] == "too_many_requests"
    assert failure[1]["error"]["code"] == "rate_limit_exceeded"
    assert sim.limiter("gpt-4o").tally().refused == 1
    assert sim.limiter("gpt-4o").tally().served_tokens == 0


def test_a_refusal_inside_a_responses_stream_is_told_in_two_events() -> None:
    sim = resource(deployment(limits=Limits(tpm=1000), refusal="stream", preamble_events=1))
    asked = {"model": "gpt-4o", "input": "hello", "max_output_tokens": 900, "stream": True}
    v1(sim, "responses", asked)
    events = sse_events(whole_body(v1(sim, "responses", asked)))
    assert [name for name, _ in events] == ["response.created", "response.failed", "error"]
    assert events[1][1]["response"]["error"] is None
    made = events[0][1]["response"]["id"]
    assert v1(sim, f"responses/{made}", method="GET").status == 404


def provisioned(**changes: Any) -> Any:
    return deployment("ptu", model="gpt-4o", kind="provisioned", **changes)


def test_a_full_provisioned_deployment() -> None:
    sim = resource(provisioned(limits=provisioned_limits(1000)))
    path = "/openai/deployments/ptu/chat/completions"
    first = chat(sim, path=path, max_tokens=300)
    assert headers_of(first)["azure-openai-deployment-utilization"] == "120.8%"
    assert "x-ratelimit-limit-tokens" not in headers_of(first)
    answer = chat(sim, path=path, max_tokens=1)
    assert (answer.status, error(answer)["code"]) == (429, "rate_limit_reached")
    assert headers_of(answer)["retry-after-ms"] == "12540"
    finish(first, 1.0, 10)
    assert chat(sim, path=path, now=1.0).status == 200


@pytest.mark.parametrize(
    ("configured", "header"), [("standard", None), (None, b"standard"), ("none", b"standard")]
)
def test_what_does_not_fit_spills_over(configured: str | None, header: bytes | None) -> None:
    sim = resource(
        provisioned(limits=provisioned_limits(100), spillover=configured),
        deployment("standard", model="gpt-4o"),
    )
    path = "/openai/deployments/ptu/chat/completions"
    headers = ((b"api-key", b"simulated-key"),)
    if header is not None:
        headers += ((b"x-ms-spillover-deployment", header),)
    first, second = (post(sim, path, {**HELLO, "max_tokens": 90}, headers=headers) for _ in "12")
    assert headers_of(first)["x-ms-deployment-name"] == "ptu"
    assert (second.status, headers_of(second)["x-ms-deployment-name"]) == (200, "standard")
    assert headers_of(second)["x-ms-spillover-from-deployment"] == "ptu"


def test_when_the_spillover_fails_too_the_first_answer_stands() -> None:
    sim = resource(
        provisioned(limits=provisioned_limits(100), spillover="standard"),
        deployment("standard", model="gpt-4o", limits=Limits(tpm=1)),
    )
    path = "/openai/deployments/ptu/chat/completions"
    chat(sim, path=path, max_tokens=90)
    answer = chat(sim, path=path, max_tokens=90)
    assert (answer.status, error(answer)["code"]) == (429, "rate_limit_reached")
    assert headers_of(answer)["x-ms-spillover-error"] == "429"
