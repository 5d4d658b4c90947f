"""Every row of the failure table, with the bodies that upstreams send."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import failure_document
import pytest
import trio
from azure_errors import FILTERED
from chat_stream import ROLE, TEXT
from exchange_bench import ONE, TWO, bench
from fakes import REFUSED, RESET, FakeAnswer, FakeRequest, chat, completion, event_stream

from actors.policy.benches import DEFAULT_BENCH_S
from proxy.exchange import classify, failure_table
from proxy.exchange.failure_table import MEANING, RULES, Rule
from proxy.exchange.ports import FailureKind, Headers, Phase, UpstreamFailure

NOW = 1_795_000_000.0


@dataclass(frozen=True)
class Golden:
    """`error`: the value of the body's `error`, or the body itself as bytes. `bench_s`: what is
    taken for the hint."""

    rule: Rule
    status: int
    error: Any
    headers: Headers = field(default_factory=list)
    bench_s: float | None = None
    limit: str | None = None

    @property
    def body(self) -> bytes:
        if isinstance(self.error, bytes):
            return self.error
        return json.dumps({"error": self.error}).encode()


def quota_a(limit: str, seconds: int, tier: str = "OpenAI") -> dict[str, str]:
    return {
        "code": "429",
        "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API "
        f"version 2024-10-21 have exceeded {limit} rate limit of your current {tier} S0 pricing "
        f"tier. Please retry after {seconds} seconds. Please go here: https://aka.ms/oai/"
        "quotaincrease if you would like to further increase the default rate limit.",
    }


def quota_b(limit: str, seconds: int) -> dict[str, str]:
    return {
        "code": "RateLimitReached",
        "message": f"Your requests to gpt-4o for my-gpt-4o in East US have exceeded the {limit} "
        "rate limit for your current AIServices S0 pricing tier. This request was for "
        "ChatCompletions_Create under Azure OpenAI API version 2024-10-21. Please retry after "
        f"{seconds} seconds. To increase your default rate limit, visit: "
        "https://aka.ms/oai/quotaincrease.",
    }


BUSY = (
    "The system is currently experiencing high demand and cannot process your request. Your "
    "request exceeds the maximum usage size allowed during peak load. For improved capacity "
    "reliability, consider switching to Provisioned Throughput."
)
PROVISIONED = "Requests have exceeded the throughput limit on your Provisioned-Managed deployment."
NO_TOKENS: Headers = [
    (b"x-ratelimit-remaining-tokens", b"0"),
    (b"x-ratelimit-remaining-requests", b"10"),
]
DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the "
    "last 5 minutes, please wait a moment and try again."
)
BACKEND = "Backend returned unexpected response. Please contact Microsoft for help."
T = failure_table

GOLDEN = {
    "A tokens": Golden(T.QUOTA, 429, quota_a("token", 20), bench_s=20, limit="tokens"),
    "A calls": Golden(
        T.QUOTA, 429, quota_a("call", 7, "AIServices"), bench_s=7, limit="requests"
    ),
    "A free trial": Golden(T.QUOTA, 429, quota_a("token", 86400), bench_s=86400, limit="tokens"),
    "A with both hints": Golden(
        T.QUOTA, 429, quota_a("token", 20), [(b"retry-after-ms", b"1250"), (b"retry-after", b"2")],
        bench_s=1.25, limit="tokens",
    ),
    "B tokens": Golden(T.QUOTA, 429, quota_b("token", 12), bench_s=12, limit="tokens"),
    "B calls": Golden(T.QUOTA, 429, quota_b("call", 1), bench_s=1, limit="requests"),
    "reset header only": Golden(
        T.QUOTA, 429, {"code": "429"}, [(b"x-rate-limit-reset-tokens", b"34")], bench_s=34
    ),
    "OpenAI's own": Golden(
        T.QUOTA, 429,
        {"message": "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000. Please "
         "try again in 6m0s.", "type": "tokens", "param": None, "code": "rate_limit_exceeded"},
        bench_s=360, limit="tokens",
    ),
    "no hint, nothing left": Golden(T.QUOTA, 429, b"", NO_TOKENS, limit="tokens"),
    "C capacity": Golden(
        T.NO_CAPACITY, 429, {"type": "too_many_requests", "code": "no_capacity", "message": BUSY},
        NO_TOKENS, bench_s=2,
    ),
    "C capacity with a hint": Golden(
        T.NO_CAPACITY, 429,
        {"code": "NoCapacity", "message": f"{BUSY} Please retry after 20 seconds."}, bench_s=20,
    ),
    "D provisioned": Golden(
        T.PROVISIONED_FULL, 429, {"code": "rate_limit_reached", "message": PROVISIONED},
        [(b"retry-after-ms", b"340"), (b"retry-after", b"1")], bench_s=0.34,
    ),
    "D provisioned, 429 for a code": Golden(
        T.PROVISIONED_FULL, 429, {"code": "429", "message": PROVISIONED}, NO_TOKENS, bench_s=1
    ),
    "401 key": Golden(
        T.CREDENTIAL, 401,
        {"code": "401", "message": "Access denied due to invalid subscription key or wrong API "
         "endpoint. Make sure to provide a valid key for an active subscription and use a correct "
         "regional API endpoint for your resource."},
    ),
    "401 token": Golden(
        T.CREDENTIAL, 401,
        b'{"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid, audience '
        b'is incorrect (https://cognitiveservices.azure.com), or have expired."}',
    ),
    "401 role": Golden(
        T.CREDENTIAL, 401,
        {"code": "PermissionDenied", "message": "The principal `p` lacks the required data action "
         "`Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action` to "
         "perform `POST /openai/deployments/{deployment-id}/chat/completions` operation."},
    ),
    "402": Golden(T.CREDENTIAL, 402, {"message": "Insufficient Balance"}),
    "403 keys are off": Golden(
        T.CREDENTIAL, 403,
        {"code": "AuthenticationTypeDisabled", "message": "Key based authentication is disabled "
         "for this resource."},
    ),
    "403 firewall": Golden(
        T.CREDENTIAL, 403,
        {"code": "403", "message": "Public access is disabled. Please configure private endpoint."},
    ),
    "403 blocked": Golden(
        T.CREDENTIAL, 403, {"message": "Your resource has been temporarily blocked because we "
                            "detected behavior that may violate our content policy."},
    ),
    "404 deployment": Golden(
        T.NO_MODEL, 404, {"code": "DeploymentNotFound", "message": DEPLOYMENT}
    ),
    "404 deployment, newer": Golden(
        T.NO_MODEL, 404,
        {"type": "invalid_request_error", "code": "DeploymentNotFound", "message": DEPLOYMENT},
    ),
    "404 model": Golden(
        T.NO_MODEL, 404, {"code": "model_not_found", "message": "The model `x` does not exist"}
    ),
    "400 version": Golden(
        T.OLD_VERSION, 400, {"code": "BadRequest", "message": "API version not supported"}
    ),
    "404 resource": Golden(T.NOT_HERE, 404, {"code": "404", "message": "Resource not found"}),
    "404 gateway": Golden(
        T.NOT_HERE, 404, b'{"statusCode": 404, "message": "Resource not found"}'
    ),
    "408": Golden(T.FAILED, 408, {"code": "Timeout", "message": "The operation was timeout."}),
    "409": Golden(T.FAILED, 409, {"code": "conflict", "message": "try again"}),
    "500 backend": Golden(T.FAILED, 500, {"code": "InternalServerError", "message": BACKEND}),
    "500 server_error": Golden(
        T.FAILED, 500,
        {"message": "The server had an error while processing your request. Sorry about that! "
         "(Please include the request ID 1 in your message.)", "type": "server_error",
         "param": None, "code": "server_error"},
    ),
    "502 no JSON": Golden(T.FAILED, 502, b"<html>502 Bad Gateway</html>"),
    "503 with a hint": Golden(
        T.FAILED, 503, b"", [(b"retry-after", b"30")], bench_s=30,
    ),
    "529": Golden(T.FAILED, 529, {"type": "overloaded_error", "message": "Overloaded"}),
    "307": Golden(T.REDIRECTED, 307, b"", [(b"location", b"https://secret.example/")]),
    "400 filter": Golden(T.FILTERED, 400, FILTERED),
    "400 filter, other spelling": Golden(
        T.FILTERED, 400,
        {**FILTERED, "innererror": None, "inner_error": {"content_filter_results": {}}},
    ),
    "400 too long": Golden(
        T.CLIENTS, 400,
        {"message": "This model's maximum context length is 8192 tokens. However, your messages "
         "resulted in 9000 tokens. Please reduce the length of the messages.",
         "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"},
    ),
    "400 operation": Golden(
        T.CLIENTS, 400,
        {"code": "OperationNotSupported", "message": "The chatCompletion operation does not work "
         "with the specified model, ada. Please choose different model and try again."},
    ),
    "400 parameter": Golden(
        T.CLIENTS, 400,
        {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
         "'max_completion_tokens' instead.", "type": "invalid_request_error",
         "param": "max_tokens", "code": "unsupported_parameter"},
    ),
    "413": Golden(T.CLIENTS, 413, b"<html>Request Entity Too Large</html>"),
    "422": Golden(T.CLIENTS, 422, b'{"detail":[{"loc":["body","messages"]}]}'),
    "431": Golden(T.CLIENTS, 431, b""),
    "418 unknown": Golden(T.CLIENTS, 418, b"teapot"),
    "599 unknown": Golden(T.FAILED, 599, b"\xff"),
}  # fmt: skip

TOLD_CODES = {
    "credentials": (502, "upstream_authentication_failed"),
    "redirected": (502, "upstream_redirected"),
}


def bench_s(golden: Golden) -> float:
    return min(golden.bench_s or DEFAULT_BENCH_S, 3600)


def impatient(**fields: Any) -> FakeRequest:
    """It does not wait for an instance to come back."""
    request = chat(**fields)
    request.headers.append((b"x-max-wait-ms", b"0"))
    return request


@pytest.mark.parametrize("name", GOLDEN)
def test_the_row_of_an_answer(name: str) -> None:
    golden = GOLDEN[name]
    verdict = classify.answer(
        golden.status, golden.headers, golden.body, wall_now=NOW, latency_s=1.0
    )
    assert verdict.rule is golden.rule
    outcome = verdict.outcome
    assert (outcome.kind, outcome.bench_s) == (golden.rule.kind, golden.bench_s)
    assert (outcome.limit, outcome.status) == (golden.limit, golden.status)


@pytest.mark.parametrize("name", GOLDEN)
async def test_what_the_client_gets_and_what_is_benched(name: str) -> None:
    golden = GOLDEN[name]
    answer = FakeAnswer(golden.status, golden.headers, [golden.body])
    async with bench(ONE, one=answer) as alone:
        writer = await alone.send(impatient())
        if golden.rule.told == "limit":
            told_ms = int(writer.header(b"retry-after-ms") or 0)
            assert (writer.status, writer.error()["code"]) == (429, "rate_limit_exceeded")
            assert told_ms == pytest.approx(1000 * bench_s(golden), abs=1000)
        elif golden.rule.told == "as it came":
            assert (writer.status, writer.body) == (golden.status, golden.body)
            assert writer.header(b"x-proxy-attempts") == b"1"
        else:
            assert (writer.status, writer.error()["code"]) == TOLD_CODES[golden.rule.told]
            assert b"secret" not in writer.body + repr(writer.headers).encode()
        assert len(alone.upstream.requests) == 1
        now = trio.current_time()
        standing = alone.system.standing("one")
        benches = standing.benches
        _, domain = MEANING[golden.rule.kind]
        assert (standing.error_count == 0) == (domain == "request")
        assert (benches.credential > now) == (golden.rule.kind == "credential_error")
        assert ("gpt-4" in benches.models) == (golden.rule.kind == "model_error")
        until = benches.limits.get("gpt-4")
        if golden.rule.kind == "rate_limited":
            assert until == pytest.approx(now + bench_s(golden), abs=1)
        else:
            assert until is None
        assert (domain == "request") == (standing.status(now) == "healthy" and not until) or (
            golden.rule.kind in ("instance_error", "model_error")  # one failure opens nothing
        )
    async with bench(ONE, TWO, one=answer, two=completion()) as both:
        writer = await both.send(chat())
        assert (writer.status == 200) == golden.rule.elsewhere


@pytest.mark.parametrize(
    ("phase", "kind", "rule", "told"),
    [
        ("connect", "refused", T.UNREACHED, (502, "upstream_unreachable")),
        ("connect", "dns", T.UNREACHED, (502, "upstream_unreachable")),
        ("connect", "tls", T.UNREACHED, (502, "upstream_unreachable")),
        ("connect", "timeout", T.UNREACHED, (504, "upstream_timeout")),
        ("send", "reset", T.UNSENT, (502, "upstream_unreachable")),
        ("head", "reset", T.UNANSWERED, (502, "upstream_unreachable")),
        ("head", "protocol", T.UNANSWERED, (502, "upstream_unreachable")),
        ("head", "timeout", T.UNANSWERED, (504, "upstream_timeout")),
        ("body", "reset", T.BROKEN, (502, "upstream_unreachable")),
        ("body", "timeout", T.BROKEN, (504, "upstream_timeout")),
    ],
)
async def test_the_row_of_an_exchange_that_broke(
    phase: Phase, kind: FailureKind, rule: Rule, told: tuple[int, str]
) -> None:
    failure = UpstreamFailure(phase, kind, "what happened")
    assert classify.failure(failure, latency_s=1.0).rule is rule
    async with bench(ONE, one=failure) as alone:
        writer = await alone.send(chat())
        assert (writer.status, writer.error()["code"]) == told
        assert writer.header(b"x-proxy-attempts") == b"1"
        assert alone.system.standing("one").error_count == 1
    async with bench(ONE, TWO, one=failure, two=completion()) as both:
        assert (await both.send(chat())).status == 200


def azure_error(kind: str, code: str | None, **headers: str) -> bytes:
    """The event in which Azure tells of a failure after a status of 200."""
    error = {"type": kind, "code": code, "headers": headers, "message": "m", "param": None}
    event = {"type": "error", "error": error, "sequence_number": 2}
    return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"


FAILED_RESPONSE = {
    "type": "response.failed",
    "sequence_number": 3,
    "response": {
        "error": {"code": "rate_limit_exceeded", "message": "Please retry after 5 seconds"}
    },
}


@pytest.mark.parametrize(
    ("event", "status", "rule"),
    [
        (azure_error("server_error", "server_error"), 500, T.FAILED),
        (azure_error("too_many_requests", "rate_limit_exceeded"), 429, T.QUOTA),
        (azure_error("too_many_requests", "no_capacity"), 429, T.NO_CAPACITY),
        (azure_error("too_many_requests", "rate_limit_reached"), 429, T.PROVISIONED_FULL),
        (azure_error("forbidden", None), 403, T.CREDENTIAL),
        (azure_error("user_error", "content_filter"), 400, T.FILTERED),
        (azure_error("user_error", None), 400, T.CLIENTS),
        (azure_error("Odd", "odd"), 500, T.FAILED),
        (FAILED_RESPONSE, 429, T.QUOTA),
        ({"type": "error", "code": "server_error", "message": "m"}, 500, T.FAILED),
        ({"error": {"code": 503, "message": "overloaded"}}, 503, T.FAILED),
        ({"error": "just words"}, 500, T.FAILED),
    ],
)
async def test_an_error_in_a_stream_has_the_row_of_its_status(
    event: Any, status: int, rule: Rule
) -> None:
    path = "/v1/responses" if event is FAILED_RESPONSE else "/v1/chat/completions"
    async with bench(ONE, one=event_stream(ROLE, event)) as alone:
        writer = await alone.send(impatient(path=path, stream=True))
        expected = TOLD_CODES.get(rule.told, (status, None))[0]
        assert writer.status == expected
        kind = alone.records[0].trail[0].outcome.kind
        assert kind == rule.kind
    async with bench(
        ONE, TWO, one=event_stream(ROLE, event), two=event_stream(TEXT, b"data: [DONE]\n\n")
    ) as both:
        writer = await both.send(chat(stream=True))
        assert (writer.status == 200) == rule.elsewhere
    # After the first output it is passed on as it came, and judged all the same.
    async with bench(ONE, TWO, one=event_stream(TEXT, event), two=completion()) as both:
        writer = await both.send(chat(stream=True))
        assert writer.body.count(b"error") >= 1
        assert b"upstream_interrupted" not in writer.body
        assert both.records[0].trail[0].outcome.kind == rule.kind


def test_every_row_that_an_answer_can_have_is_golden() -> None:
    golden = {golden.rule for golden in GOLDEN.values()}
    assert golden == {rule for rule in RULES if rule.phase == "status"}


async def test_the_most_telling_failure_is_the_last_word() -> None:
    ranked: list[Any] = [
        GOLDEN["A tokens"], GOLDEN["500 backend"], GOLDEN["404 deployment"], GOLDEN["401 key"],
        REFUSED,
    ]  # fmt: skip

    def answering(one: Any) -> Any:
        return FakeAnswer(one.status, one.headers, [one.body]) if isinstance(one, Golden) else one

    for place, better in enumerate(ranked):
        for worse in ranked[place + 1 :]:
            for pair in ((better, worse), (worse, better)):
                one, two = map(answering, pair)
                async with bench(ONE, TWO, one=one, two=two) as both:
                    writer = await both.send(impatient())
                    told = better.rule.told
                    expected = TOLD_CODES[told][0] if told in TOLD_CODES else better.status
                    assert (writer.status, writer.header(b"x-proxy-attempts")) == (expected, b"2")


async def test_a_cut_after_the_first_output_has_its_row() -> None:
    verdict = classify.cut("stream ended early", latency_s=1.0)
    assert (verdict.rule, verdict.elsewhere) == (T.CUT, False)
    async with bench(ONE, TWO, one=event_stream(TEXT, failure=RESET), two=completion()) as both:
        await both.send(chat(stream=True))
        assert both.records[0].trail[0].outcome.kind == T.CUT.kind
        assert len(both.upstream.requests) == 1


def test_the_document_has_the_tables_of_the_code() -> None:
    document = failure_document.DOCUMENT.read_text("utf-8")
    assert failure_document.filled(document) == document, "run: python tests/failure_document.py"
