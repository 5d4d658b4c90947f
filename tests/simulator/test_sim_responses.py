"""The Responses API and what a resource keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from simulator_calls import (
    deployment,
    document,
    error,
    headers_of,
    post,
    resource,
    sse_events,
    v1,
    whole_body,
)

from proxy.simulator.deployment import Latency
from proxy.simulator.text import answer_text

if TYPE_CHECKING:
    from proxy.simulator.resource import Resource


def create(to: Resource, *, now: float = 0.0, **body: Any) -> Any:
    return v1(to, "responses", {"model": "gpt-4o", "input": "hello", **body}, now=now)


def test_a_plain_response_and_its_usage() -> None:
    body = document(create(resource(), instructions="be kind", max_output_tokens=16))
    message = body["output"][0]
    assert body["object"] == "response"
    assert message["content"][0]["text"] == answer_text(16)
    assert body["usage"]["output_tokens"] == 16
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + 16
    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    ended = document(create(resource(), metadata={"simulated_output_tokens": "16"}))
    assert (ended["status"], ended["incomplete_details"]) == ("completed", None)


def test_the_stream_tells_the_story_in_order() -> None:
    answer = create(resource(), stream=True, metadata={"simulated_output_tokens": "3"})
    events = sse_events(whole_body(answer))
    names = [name for name, _ in events]
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for _, event in events] == list(range(len(events)))
    assert all(event["type"] == name for name, event in events)
    text = "".join(event["delta"] for name, event in events if name.endswith("text.delta"))
    last = events[-1][1]["response"]
    assert text == last["output"][0]["content"][0]["text"] == answer_text(3)
    assert last["usage"]["output_tokens"] == 3
    assert events[0][1]["response"]["id"] == last["id"]
    assert events[0][1]["response"]["usage"] is None


def test_a_response_is_kept_and_can_be_read_and_deleted() -> None:
    sim = resource()
    made = document(create(sim))
    assert document(v1(sim, f"responses/{made['id']}", method="GET")) == made
    items = document(v1(sim, f"responses/{made['id']}/input_items", method="GET"))
    assert items["data"][0]["content"] == [{"type": "input_text", "text": "hello"}]
    assert document(v1(sim, f"responses/{made['id']}", method="DELETE"))["deleted"] is True
    assert v1(sim, f"responses/{made['id']}", method="GET").status == 404
    unkept = document(create(sim, store=False))
    assert v1(sim, f"responses/{unkept['id']}", method="GET").status == 404


def test_a_stream_can_be_resumed_after_an_event() -> None:
    sim = resource()
    events = sse_events(whole_body(create(sim, stream=True)))
    made = events[0][1]["response"]["id"]
    answer = post(
        sim,
        f"/openai/v1/responses/{made}",
        b"",
        query=b"stream=true&starting_after=4",
        method="GET",
    )
    assert headers_of(answer)["content-type"].startswith("text/event-stream")
    assert sse_events(whole_body(answer)) == events[5:]


def test_a_conversation_goes_on_only_where_it_began() -> None:
    here, elsewhere = resource(name="here"), resource(name="elsewhere")
    first = document(create(here))
    second = document(create(here, previous_response_id=first["id"]))
    before = first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
    assert second["usage"]["input_tokens"] == first["usage"]["input_tokens"] + before
    lost = create(elsewhere, previous_response_id=first["id"])
    assert (lost.status, error(lost)["code"]) == (400, "previous_response_not_found")
    assert error(lost)["param"] == "previous_response_id"


def test_encrypted_reasoning_opens_only_where_it_was_sealed() -> None:
    here, elsewhere = resource(name="here"), resource(name="elsewhere")
    made = document(create(here, include=["reasoning.encrypted_content"]))
    thought = made["output"][0]
    assert thought["type"] == "reasoning"
    again = [thought, {"role": "user", "content": "and then?"}]
    assert create(here, input=again).status == 200
    for sealed in (thought["encrypted_content"], "gAAAA", "gAAAA!", "tampered", 5):
        refused = create(elsewhere, input=[{**thought, "encrypted_content": sealed}])
        assert (refused.status, error(refused)["code"]) == (400, "invalid_encrypted_content")


def test_reasoning_comes_before_the_message_in_a_stream() -> None:
    sim = resource(deployment("o3"))
    events = sse_events(
        whole_body(v1(sim, "responses", {"model": "o3", "input": "x", "stream": True}))
    )
    added = [event["item"]["type"] for name, event in events if name.endswith("item.added")]
    assert added == ["reasoning", "message"]


def test_a_background_response_is_queued_runs_and_can_be_cancelled() -> None:
    slow = Latency(first_token_s=1, per_token_s=1, jitter_s=0)
    sim = resource(deployment(latency=slow))
    sixteen = {"metadata": {"simulated_output_tokens": "16"}, "background": True}
    answer = create(sim, **sixteen)
    made = document(answer)
    assert (made["status"], made["output"], answer.after_s) == ("queued", [], 0)

    def status(of: str, now: float) -> str:
        return str(document(v1(sim, f"responses/{of}", method="GET", now=now))["status"])

    assert status(made["id"], 16.9) == "in_progress"
    assert status(made["id"], 17.1) == "completed"
    other = document(create(sim, now=20, **sixteen))["id"]
    cancelled = document(v1(sim, f"responses/{other}/cancel", now=21))
    assert cancelled["status"] == "cancelled"
    assert status(other, 100) == "cancelled"
    assert document(v1(sim, f"responses/{made['id']}/cancel", now=22))["status"] == "completed"


def test_what_responses_refuse() -> None:
    sim = resource()
    assert error(v1(sim, "responses", {"model": "gpt-4o"}))["param"] == "input"
    assert error(create(sim, max_output_tokens=8))["code"] == "integer_below_min_value"
    assert create(sim, input=5).status == 400
    assert create(sim, input=["text"]).status == 400
    plain = document(create(sim))["id"]
    assert v1(sim, f"responses/{plain}/cancel").status == 400
    assert v1(sim, f"responses/{plain}/unknown").status == 404


@pytest.mark.parametrize(
    ("items", "tokens"),
    [
        ("12345678", 3 + 2),
        ([{"role": "user", "content": "12345678"}], 3 + 2),
        ([{"role": "user", "content": [{"type": "input_text", "text": "12345678"}]}], 3 + 2),
        ([{"type": "function_call_output", "call_id": "1", "output": "12345678"}], 3 + 2),
    ],
)
def test_every_shape_of_input_counts(items: Any, tokens: int) -> None:
    # One character more than the text: the space that parts it from the (empty) instructions.
    counted = document(create(resource(), input=items))["usage"]["input_tokens"]
    assert counted == tokens + 1
