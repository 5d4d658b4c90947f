"""Why a request goes where it goes, over the admin API."""

from __future__ import annotations

from typing import Any

import pytest
from front_fakes import ADMIN_KEY, FakeExplainer, explaining, front

from actors.messages import Evidence, Explanation, Judgement, Outcome
from proxy.exchange.record import AttemptRecord, RecentRequests, RequestRecord

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


async def explain(document: Any, explainer: FakeExplainer | None = None) -> tuple[int, Any]:
    app = front(explanations=explaining(explainer or FakeExplainer(FOUND)))
    async with app.test_app() as running:
        answer = await running.test_client().post(
            "/admin/route/explain", json=document, headers=HEADERS
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


async def test_a_request_body_is_counted_as_it_would_be() -> None:
    explainer = FakeExplainer(FOUND)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 7}
    await explain(body, explainer)
    demand = explainer.asked[0]
    assert demand.exact
    assert demand.input_low == 8
    assert demand.output == 7


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "model"),
        ({"model": 5}, "model"),
        ({"model": "m", "input_tokens": -1}, "input_tokens"),
        ({"model": "m", "max_tokens": "9"}, "max_tokens"),
        ({"model": "m", "tokens": 9}, "tokens"),
    ],
)
async def test_a_wrong_question_is_refused_by_field(document: Any, field: str) -> None:
    status, told = await explain(document)
    assert status == 422
    assert [each["field"] for each in told["errors"]] == [field]


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
                AttemptRecord("two", 5.1, 100, done, 42, Evidence(1000, 900)),
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
        assert (await client.get("/admin/requests/other", headers=HEADERS)).status_code == 404
        assert (await client.get("/admin/requests/req-1")).status_code == 401


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
