"""Which call meets a fault, and what is left of the answer."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from simulator_calls import (
    CHAT,
    chat,
    deployment,
    document,
    error,
    get,
    headers_of,
    resource,
    sse_events,
    v1,
    whole_body,
)

from proxy.simulator.call import Answer, Piece
from proxy.simulator.deployment import provisioned_limits
from proxy.simulator.faults import Fault, Faults, parse_fault

if TYPE_CHECKING:
    from proxy.simulator.resource import Resource


def with_fault(**fault: Any) -> Resource:
    sim = resource(deployment("gpt-4o"), deployment("gpt-4o-mini"))
    sim.faults.inject(Fault(**fault))
    return sim


def pieces_of(answer: Answer) -> list[Piece]:
    assert not isinstance(answer.body, bytes)
    return list(answer.body)


def test_a_fault_strikes_so_many_calls_and_is_over() -> None:
    sim = with_fault(kind="status", status=503, calls=2)
    assert [chat(sim).status for _ in range(4)] == [503, 503, 200, 200]
    assert sim.faults.active() == {}


def test_a_fault_strikes_its_deployment_only() -> None:
    sim = with_fault(kind="status", deployment="gpt-4o-mini")
    assert chat(sim).status == 200
    assert chat(sim, path=CHAT.replace("4o", "4o-mini")).status == 500
    assert v1(sim, "responses", {"model": "gpt-4o-mini", "input": "x"}).status == 500


def test_a_fault_strikes_in_its_time_which_begins_with_the_first_call() -> None:
    sim = with_fault(kind="unauthorized", from_s=10, until_s=20)
    statuses = [chat(sim, now=1000 + second).status for second in (0, 9, 10, 19, 20)]
    assert statuses == [200, 200, 401, 401, 200]


def test_a_fault_strikes_as_often_as_its_probability_says() -> None:
    sim = with_fault(kind="status", probability=0.25)
    struck = sum(chat(sim).status == 500 for _ in range(2000))
    assert 420 < struck < 580


def test_faults_can_be_switched_off_one_by_one_or_all() -> None:
    faults = Faults(random.Random(0))
    one = faults.inject(Fault(kind="hang"))
    two = faults.inject(Fault(kind="cut"))
    faults.clear(one)
    faults.clear(one)
    assert list(faults.active()) == [two]
    faults.clear()
    assert faults.strike(None, 0) is None


def test_there_is_a_bound_on_faults() -> None:
    faults = Faults(random.Random(0))
    for _ in range(1000):
        faults.inject(Fault(kind="hang"))
    with pytest.raises(ValueError, match="at most"):
        faults.inject(Fault(kind="hang"))


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "status", "status": 500}, 500, "InternalServerError"),
        ({"kind": "status", "status": 503}, 503, "ServiceUnavailable"),
        ({"kind": "status", "status": 408}, 408, "Timeout"),
        ({"kind": "status", "status": 403}, 403, "403"),
        ({"kind": "unauthorized"}, 401, "401"),
        ({"kind": "model_missing"}, 404, "DeploymentNotFound"),
    ],
)
def test_faults_that_are_answers(fault: dict[str, Any], status: int, code: str) -> None:
    sim = with_fault(**fault)
    answer = chat(sim)
    assert (answer.status, error(answer)["code"]) == (status, code)
    assert sim.limiter("gpt-4o").tally().admitted == 0
    assert get(sim, "/openai/models").status == status


def test_faults_before_any_answer() -> None:
    assert chat(with_fault(kind="refuse")).refused
    assert chat(with_fault(kind="hang")).after_s == math.inf


def test_a_cut_stream_ends_after_so_many_events() -> None:
    pieces = pieces_of(chat(with_fault(kind="cut", after_events=3), stream=True))
    assert len(pieces) == 4
    assert pieces[-1].body is None
    assert b"assistant" in (pieces[1].body or b"")


def test_a_cut_plain_answer_ends_in_its_middle_and_names_its_whole_length() -> None:
    answer = chat(with_fault(kind="cut"), max_tokens=5)
    whole = chat(resource(), max_tokens=5)
    assert isinstance(whole.body, bytes)
    first, last = pieces_of(answer)
    assert last.body is None
    assert 0 < len(first.body or b"") < len(whole.body)
    assert headers_of(answer)["content-length"] == str(len(whole.body))


def test_a_body_that_hangs_says_nothing_more() -> None:
    pieces = pieces_of(chat(with_fault(kind="hang_in_body", after_events=0), stream=True))
    assert pieces == [Piece(math.inf, None)]


def test_a_malformed_event_stands_in_the_middle_of_the_others() -> None:
    stream = whole_body(chat(with_fault(kind="malformed", after_events=2), stream=True))
    events = stream.split(b"\n\n")
    assert events[2] == b'data: {"choices":[{"delta":'
    assert events[-2] == b"data: [DONE]"
    plain = chat(with_fault(kind="malformed"))
    with pytest.raises(ValueError, match=r"JSON|delimiter|Unterminated|Expecting"):
        document(plain)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ("error", ["error"]),
        ("failed", ["response.failed"]),
        ("both", ["response.failed", "error"]),
    ],
)
def test_an_error_in_a_stream_after_http_200(shape: str, names: list[str]) -> None:
    sim = with_fault(
        kind="error_in_stream",
        after_events=2,
        shape=shape,
        error_type="too_many_requests",
        error_code="no_capacity",
    )
    asked = {"model": "gpt-4o", "input": "x", "stream": True}
    events = sse_events(whole_body(v1(sim, "responses", asked)))
    assert [name for name, _ in events] == ["response.created", "response.in_progress", *names]
    assert "no_capacity" in str(events[-1])
    if shape == "both":
        assert events[2][1]["response"]["error"] is None


def test_an_error_in_a_stream_is_an_error_answer_to_a_plain_call_and_bills_nothing() -> None:
    sim = with_fault(kind="error_in_stream", status=500)
    assert chat(sim).status == 500
    assert sim.limiter("gpt-4o").tally().settled == 1
    streamed = chat(sim, stream=True)
    assert streamed.run is not None
    streamed.run.ended(1.0, 2)
    assert sim.limiter("gpt-4o").tally().served_tokens == 0


@given(st.integers(1, 40), st.booleans())
def test_a_trickle_changes_the_timing_and_not_a_byte(piece_bytes: int, stream: bool) -> None:
    trickling = with_fault(kind="trickle", piece_bytes=piece_bytes, every_s=2.0)
    answer = chat(trickling, stream=stream, max_tokens=3)
    intact = chat(with_fault(kind="status", calls=1, from_s=9), stream=stream, max_tokens=3)
    pieces = pieces_of(answer)
    assert b"".join(piece.body or b"" for piece in pieces) == whole_body(intact)
    assert all(len(piece.body or b"") <= piece_bytes for piece in pieces)
    assert all(piece.after_s >= 2 for piece in pieces)
    assert sum(piece.tokens for piece in pieces) == (3 if stream else 0)


def test_an_error_answer_is_not_distorted() -> None:
    assert error(chat(with_fault(kind="cut"), max_tokens=0))["code"] == "integer_below_min_value"


def test_a_provisioned_deployment_spills_over_when_it_fails() -> None:
    ptu = deployment(
        "ptu",
        model="gpt-4o",
        kind="provisioned",
        limits=provisioned_limits(1000),
        spillover="standard",
    )
    sim = resource(ptu, deployment("standard", model="gpt-4o"))
    sim.faults.inject(Fault(kind="status", status=500, deployment="ptu"))
    answer = chat(sim, path="/openai/deployments/ptu/chat/completions")
    assert answer.status == 200
    assert headers_of(answer)["x-ms-spillover-from-deployment"] == "ptu"


def test_faults_are_read_strictly_from_json() -> None:
    fault = parse_fault(b'{"kind": "cut", "deployment": "gpt-4o", "after_events": 4}')
    assert fault == Fault(kind="cut", deployment="gpt-4o", after_events=4)
    for wrong in (
        b"{}",
        b'{"kind": "unknown"}',
        b'{"kind": "cut", "probability": 2}',
        b'{"kind": "cut", "calls": 0}',
        b'{"kind": "cut", "after": 1}',
        b'{"kind": "status", "status": 200}',
        b"[",
    ):
        with pytest.raises(ValidationError):
            parse_fault(wrong)
