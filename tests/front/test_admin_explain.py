"""Why a request goes where it goes, over the admin API."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from fakes import FakeRequest, FakeUpstream, FakeWriter, completion
from front_fakes import ADMIN_KEY, FakeExplainer, explaining, front
from harness import instance_config, running_system

from actors.messages import Demand, Evidence, Explanation, Judgement, Outcome, Refused
from actors.policy.headroom import Obstacle
from proxy.bound.binding import Binding, disabled
from proxy.exchange.attempts import Means
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.exchange import Exchange
from proxy.exchange.models import ModelList
from proxy.exchange.record import MAX_MET, AttemptRecord, RecentRequests, RequestRecord
from proxy.front.explain import Explainer
from proxy.tokens.output import Allowance

HEADERS = {"X-Admin-API-Key": ADMIN_KEY}
FOUND = Explanation(
    "two",
    12.0,
    (
        Judgement("two", None, None, None, 0, 2, 100, 0.25),
        Judgement("one", "no_headroom", 12.5, None, 1, 1, 100, 1.0),
        Judgement("off", "disabled", None, None, None, 1, 100, 0.0),
    ),
    3,
)

FULL = {"one": Obstacle("no_headroom", 12.5)}
FULL_TOLD = {
    "instance": "one",
    "reason": "no_headroom",
    "until": 1_700_000_012.5,
    "limit_tokens": None,
}


async def explain(
    document: Any,
    explainer: Explainer | None = None,
    *,
    path: str | None = None,
    headers: dict[str, str] | None = None,
    **means: Any,
) -> tuple[int, Any]:
    app = front(explanations=explaining(explainer or FakeExplainer(FOUND), **means))
    async with app.test_app() as running:
        answer = await running.test_client().post(
            "/admin/route/explain",
            json=document,
            headers=HEADERS | (headers or {}),
            query_string={} if path is None else {"path": path},
        )
        return answer.status_code, await answer.get_json()


async def test_every_instance_is_told_with_its_reason_and_its_numbers() -> None:
    status, told = await explain({"model": "gpt-4o", "input_tokens": 40, "max_tokens": 60})
    assert status == 200
    assert (told["answer"], told["waiting"]) == ("two", 3)
    assert told["retry_at"] == 1_700_000_012.0
    assert [(each["name"], each["eligible"], each["reason"]) for each in told["instances"]] == [
        ("two", True, None),
        ("one", False, "no_headroom"),
        ("off", False, "disabled"),
    ]
    assert told["instances"][1]["until"] == 1_700_000_012.5


EMBEDDINGS = "text-embedding-3-small"
HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HI, "max_tokens": 7}),
        ("/v1/chat/completions", {"messages": HI, "n": 3}),
        ("/v1/chat/completions", {"messages": HI, "prompt_cache_key": "k1"}),
        ("/v1/chat/completions", {"messages": HI, "prompt_cache_key": "k2"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "many words " * 600}]}),
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 100}),
        ("/v1/responses", {"input": "hello", "max_output_tokens": 5}),
        ("/v1/embeddings", {"input": "hello world"}),
        ("/v1/embeddings", {"input": list(range(1000))}),
        ("/v1/embeddings", {"input": [[1] * 500] * 4}),
    ],
)
@pytest.mark.parametrize("by_path", [True, False])
async def test_a_request_is_explained_as_it_is_answered(
    path: str, body: dict[str, Any], *, by_path: bool
) -> None:
    body = {"model": EMBEDDINGS if "embed" in path else "gpt-4", **body}
    configs = [
        instance_config(name, max_tpm=5000, supported_models=["gpt-4", EMBEDDINGS], weight=weight)
        for name, weight in (("one", 100), ("two", 0), ("three", 0))
    ]
    upstream = FakeUpstream(**dict.fromkeys(("one", "two", "three"), completion()))
    async with running_system(*configs) as system:
        means = Means(system.leases, upstream, Allowance(), 10.0)
        _, told = await explain(body, system.leases, path=path if by_path else None, means=means)
        records: list[RequestRecord] = []
        exchange = Exchange(
            means=means,
            models=ModelList(system.administration),
            keys=ClientKeys(()),
            max_running=10,
            record=records.append,
        )
        await exchange.handle(FakeRequest(path, [json.dumps(body).encode()]), FakeWriter())
    (record,) = records
    assert record.attempts == 1
    assert told["operation"] == record.operation
    assert told["input_tokens"] == record.demanded_input_tokens
    assert told["output_tokens"] == record.demanded_output_tokens
    assert told["answer"] == record.instance


@pytest.mark.parametrize(
    ("path", "model", "input_tokens", "output_tokens"),
    [
        ("/v1/moderations", "m", 1, 0),
        ("/v1/audio/speech", "m", 1, 256),
        ("/openai/deployments/named/embeddings", "named", 1, 0),
    ],
)
async def test_the_path_says_what_a_request_is_for(
    path: str, model: str, input_tokens: int, output_tokens: int
) -> None:
    _, told = await explain({"model": "m", "input": "hello"}, path=path)
    assert (told["model"], told["input_tokens"]) == (model, input_tokens)
    assert told["output_tokens"] == output_tokens


async def test_what_depends_on_the_exact_number_is_counted() -> None:
    explainer = FakeExplainer(FOUND._replace(answer="count_first"))
    _, told = await explain({"model": "gpt-4o", "messages": HI, "max_tokens": 7}, explainer)
    bounds, counted = explainer.asked
    assert not bounds.demand.exact
    assert counted.demand == Demand("gpt-4o", 8, 8, 8, 7)
    assert (told["input_tokens"], told["output_tokens"]) == (8, 7)


async def test_the_headers_are_those_of_the_request() -> None:
    explainer = FakeExplainer(FOUND)
    headers = {"x-priority": "7", "x-max-wait-ms": "2000", "x-stainless-retry-count": "1"}
    await explain({"model": "m", "messages": HI}, explainer, headers=headers)
    (ask,) = explainer.asked
    assert (ask.priority, ask.again) == (7, True)
    assert 0 < ask.wait_until - trio.current_time() <= 2.0


async def test_a_request_is_explained_where_it_is_bound_to() -> None:
    binding = Binding("responses/resp_1", "two", frozenset({"two", "twin"}))
    explainer = FakeExplainer(FOUND)
    asked: list[Any] = []

    def known(document: Any) -> Binding:
        asked.append(document["previous_response_id"])
        return binding

    body = {"model": "m", "input": "hi", "previous_response_id": "resp_1"}
    await explain(body, explainer, known=known)
    assert asked == ["resp_1"]
    assert explainer.asked[0].only == {"two", "twin"}


async def test_what_a_binding_rules_out_is_told_by_its_code() -> None:
    def known(document: Any) -> Binding:
        raise disabled("responses/resp_1", "two")

    explainer = FakeExplainer(FOUND)
    body = {"model": "m", "input": "hi", "previous_response_id": "resp_1"}
    _, told = await explain(body, explainer, known=known)
    assert told["answer"] == "instance_disabled"
    assert explainer.asked[0].only == frozenset()


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "model"),
        ({"model": 5}, "model"),
        ({"model": "m", "input_tokens": -1}, "input_tokens"),
        ({"model": "m", "max_tokens": "9"}, "max_tokens"),
        ({"model": "m", "messages": HI, "max_tokens": "abc"}, "max_tokens"),
        ({"model": "m", "messages": HI, "stream": "yes"}, "stream"),
        ({"model": 5, "messages": HI}, "model"),
        ({"model": "m", "tokens": 9}, "tokens"),
    ],
)
async def test_a_wrong_question_is_refused_by_field(document: Any, field: str) -> None:
    status, told = await explain(document)
    assert status == 422
    assert [each["field"] for each in told["errors"]] == [field]


@pytest.mark.parametrize("path", ["", "/", "/v1/files", "/v1/images/edits", "/v1/models"])
async def test_a_path_that_is_none_is_refused(path: str) -> None:
    status, told = await explain({"model": "m", "input": "x"}, path=path)
    assert status == 422
    assert [each["field"] for each in told["errors"]] == ["path"]


async def test_a_header_that_can_not_be_read_is_refused() -> None:
    status, told = await explain({"model": "m"}, headers={"x-priority": "high"})
    assert status == 422
    assert [each["field"] for each in told["errors"]] == ["x-priority"]


async def test_a_recent_request_is_told_attempt_by_attempt() -> None:
    recent = RecentRequests(limit=2)
    limited = Outcome("rate_limited", status=429, reason="429: slow down", bench_s=7.0)
    done = Outcome("success", status=200, latency_s=0.5)
    recent.add(
        RequestRecord(
            "req-1",
            5.0,
            model="gpt-4o",
            status=200,
            trail=[
                AttemptRecord("one", 5.0, 100, limited, 0, None),
                AttemptRecord("two", 5.1, 100, done, 42, Evidence(1000, 900), FULL),
            ],
        )
    )
    app = front(explanations=explaining(FakeExplainer(), recent))
    async with app.test_app() as running:
        client = running.test_client()
        answer = await client.get("/admin/requests/req-1", headers=HEADERS)
        told = await answer.get_json()
        assert [
            (each["instance"], each["outcome"], each["retry_after_s"], each["settled_tokens"])
            for each in told["attempts"]
        ] == [("one", "rate_limited", 7.0, 0), ("two", "success", None, 42)]
        assert told["attempts"][1]["limits_seen"]["remaining_tokens"] == 900
        assert told["attempts"][0]["obstacles"] == []
        assert told["attempts"][1]["obstacles"] == [FULL_TOLD]
        assert told["refusal"] is None
        assert (await client.get("/admin/requests/other", headers=HEADERS)).status_code == 404
        assert (await client.get("/admin/requests/req-1")).status_code == 401


async def test_a_refused_request_is_told_with_what_it_met() -> None:
    recent = RecentRequests()
    record = RequestRecord("req-1", 5.0, status=429)
    many = {f"i{number}": Obstacle("too_large", limit=7) for number in range(20)}
    record.refuse(Refused("saturated", 12.0, met={**FULL, **many}))
    recent.add(record)
    app = front(explanations=explaining(FakeExplainer(), recent))
    async with app.test_app() as running:
        answer = await running.test_client().get("/admin/requests/req-1", headers=HEADERS)
        told = await answer.get_json()
    refusal = told["refusal"]
    assert (refusal["reason"], refusal["retry_at"]) == ("saturated", 1_700_000_012.0)
    assert refusal["obstacles"][0] == FULL_TOLD
    assert refusal["obstacles"][1]["limit_tokens"] == 7
    assert len(refusal["obstacles"]) == MAX_MET
    assert told["attempts"] == []


def test_only_the_last_requests_are_remembered() -> None:
    recent = RecentRequests(limit=2)
    for name in ("a", "b", "a", "c"):
        recent.add(RequestRecord(name, 0.0))
    assert [name for name in "abc" if recent.find(name)] == ["a", "c"]


async def test_estimates_are_shown_by_model() -> None:
    app = front()
    async with app.test_app() as running:
        answer = await running.test_client().get("/admin/estimates", headers=HEADERS)
        assert await answer.get_json() == {"models": {}}
