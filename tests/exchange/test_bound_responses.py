"""A response goes on where it began, whatever the strategy would like."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from bound_bench import BoundBench, by, document, keeper, shore
from fakes import (
    FakeAnswer,
    FakeRequest,
    FakeUpstream,
    FakeWriter,
    completion,
    error_answer,
    event_stream,
)
from harness import exact, instance_config, running_system

from actors.lease import Lease
from proxy.bound.ids import sealed_key
from proxy.bound.owners import Owners
from proxy.exchange.ports import UpstreamFailure

ONE, TWO = keeper("one", 1), keeper("two", 2)
ENCRYPTED = {"store": False, "include": ["reasoning.encrypted_content"]}


async def prefer(bench: BoundBench, name: str) -> None:
    """From now on the strategy likes `name` best."""
    await bench.system.administration.update_config(name, {"priority": 0})


def events(writer: FakeWriter) -> list[dict[str, Any]]:
    lines = [line for line in writer.body.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize("address", ["/v1", "/openai/v1", "/openai"])
async def test_a_conversation_stays_where_it_began(address: str) -> None:
    async with shore(ONE, TWO) as bench:
        fields = {"model": "gpt-4o", "input": "hello"}
        first = await bench.post(f"{address}/responses", **fields)
        assert (first.status, by(first)) == (200, "one")
        await prefer(bench, "two")
        assert by(await bench.post(f"{address}/responses", **fields)) == "two"
        second = await bench.post(
            f"{address}/responses", **fields, previous_response_id=document(first)["id"]
        )
        assert (second.status, by(second)) == (200, "one")
        third = await bench.post(
            f"{address}/responses", **fields, previous_response_id=document(second)["id"]
        )
        assert (third.status, by(third)) == (200, "one")
        assert all(" GET " not in sent for sent in bench.sea.sent)


async def test_a_streamed_response_is_remembered_before_its_end() -> None:
    async with shore(ONE, TWO) as bench:
        seen: list[str | None] = []

        async def on_write(data: bytes) -> None:
            if b'"response.created"' in data:
                seen.append(bench.owners.find(bench.owners.entries()[0][0]))

        writer = FakeWriter(on_write)
        body = json.dumps({"model": "gpt-4o", "input": "hi", "stream": True}).encode()
        await bench.exchange.handle(FakeRequest("/v1/responses", [body]), writer)
        assert seen == ["one"]
        created = events(writer)[0]["response"]["id"]
        assert bench.owners.entries() == [(f"responses/{created}", "one")]
        await prefer(bench, "two")
        assert by(await bench.respond(previous_response_id=created, stream=True)) == "one"


@pytest.mark.parametrize("stream", [False, True])
async def test_encrypted_reasoning_goes_to_who_can_read_it(stream: bool) -> None:
    async with shore(ONE, TWO) as bench:
        first = await bench.respond(**ENCRYPTED, stream=stream)
        response = events(first)[-1]["response"] if stream else document(first)
        item = response["output"][0]
        assert bench.owners.entries() == [(sealed_key(item["encrypted_content"]), "one")]
        await prefer(bench, "two")
        # The item's id is the client's to leave out.
        item.pop("id")
        again = await bench.respond(**ENCRYPTED, input=[item, {"role": "user", "content": "go on"}])
        assert (again.status, by(again)) == (200, "one")


async def test_encrypted_reasoning_of_unknown_origin_is_tried_and_remembered() -> None:
    async with shore(ONE, TWO) as bench:
        item = document(await bench.respond(**ENCRYPTED))["output"][0]
        bench.owners.forget(sealed_key(item["encrypted_content"]))
        await prefer(bench, "two")
        again = await bench.respond(input=[item])
        assert (again.status, by(again)) == (200, "one")
        assert again.header(b"x-proxy-attempts") is None
        assert bench.owners.find(sealed_key(item["encrypted_content"])) == "one"
        bench.sea.sent.clear()
        assert by(await bench.respond(input=[item])) == "one"
        assert len(bench.sea.sent) == 1
        nobodys = await bench.respond(input=[{**item, "encrypted_content": "gAAAAnobody"}])
        assert nobodys.status == 400
        assert nobodys.error()["code"] == "invalid_encrypted_content"
        assert bench.system.standing("one").error_count == 0


async def test_what_is_not_stored_is_not_remembered() -> None:
    async with shore(ONE, TWO) as bench:
        await bench.respond(store=False)
        await bench.respond(store=False, stream=True)
        assert len(bench.owners) == 0


async def test_an_unknown_response_is_searched_for_and_remembered() -> None:
    async with shore(ONE, TWO) as bench:
        first = await bench.respond()
        identity = document(first)["id"]
        bench.owners.forget(f"responses/{identity}")
        await prefer(bench, "two")
        bench.sea.sent.clear()
        again = await bench.respond(previous_response_id=identity)
        assert (again.status, by(again)) == (200, "one")
        assert bench.sea.sent == [
            f"two: GET responses/{identity}",
            f"one: GET responses/{identity}",
            "one: POST responses",
        ]
        assert bench.owners.find(f"responses/{identity}") == "one"


async def test_a_response_that_nobody_has_is_refused_by_the_upstream_and_not_sought_again() -> None:
    async with shore(ONE, TWO) as bench:
        for _ in range(2):
            answer = await bench.respond(previous_response_id="resp_nobody")
            assert answer.status == 400
            assert answer.error()["code"] == "previous_response_not_found"
        assert len(bench.sea.sent) == 2 + 2
        assert len(bench.owners) == 0


async def test_a_single_upstream_is_not_asked_twice() -> None:
    same = keeper("same", 3, api_base="https://one.openai.azure.com/openai/v1", api_version="v1")
    async with shore(ONE, same) as bench:
        await bench.respond(previous_response_id="resp_nobody")
        assert bench.sea.sent == ["one: POST responses"]


async def test_a_compaction_is_made_and_read_where_the_conversation_is() -> None:
    owners = Owners(10, [("responses/resp_1", "two")])
    compact = {"id": "resp_2", "output": [{"type": "compaction", "encrypted_content": "sealed"}]}
    answers = [FakeAnswer(pieces=[json.dumps(compact).encode()]), completion()]
    config = {"provider_type": "generic", "max_tpm": 10**6}
    one = instance_config("one", priority=1, api_base="http://one", **config)
    two = instance_config("two", priority=2, api_base="http://two", **config)
    async with running_system(one, two) as system:
        bench = BoundBench(system, FakeUpstream(one=completion(), two=answers), owners)
        fields = {"model": "gpt-4", "input": "x"}
        made = await bench.post("/v1/responses/compact", **fields, previous_response_id="resp_1")
        assert (made.status, by(made)) == (200, "two")
        assert (
            by(await bench.post("/v1/responses", model="gpt-4", input=compact["output"])) == "two"
        )


# -- an owner that is not there ----------------------------------------------------------------


async def begun(bench: BoundBench) -> str:
    identity: str = document(await bench.respond())["id"]
    return identity


async def test_an_owner_that_was_removed_is_told() -> None:
    async with shore(ONE, TWO) as bench:
        identity = await begun(bench)
        await bench.system.administration.remove("one")
        answer = await bench.respond(previous_response_id=identity)
        assert answer.status == 404
        error = answer.error()
        assert error["code"] == "instance_removed"
        assert error["type"] == "invalid_request_error"
        assert f"`{identity}` was made by the instance `one`" in error["message"]
        assert "not configured any more" in error["message"]


async def test_an_owner_under_a_new_name_is_found() -> None:
    async with shore(ONE, TWO) as bench:
        identity = await begun(bench)
        await bench.system.administration.remove("one")
        await bench.system.administration.add(ONE.model_copy(update={"name": "uno"}))
        await bench.system.administration.add(keeper("three", 0, api_base=TWO.api_base))
        answer = await bench.respond(previous_response_id=identity)
        assert (answer.status, by(answer)) == (200, "uno")
        assert bench.owners.find(f"responses/{identity}") == "uno"


async def test_an_owner_that_is_disabled_is_told() -> None:
    async with shore(ONE, TWO) as bench:
        identity = await begun(bench)
        await bench.system.administration.update_config("one", {"enabled": False})
        answer = await bench.respond(previous_response_id=identity)
        assert answer.status == 503
        assert answer.error()["code"] == "instance_disabled"
        assert answer.header(b"x-should-retry") == b"false"
        assert "`one`, which is disabled. Enable it" in answer.error()["message"]


async def test_an_owner_that_can_not_be_reached_is_told_and_nobody_else_is_tried(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with shore(ONE, TWO) as bench:
        identity = await begun(bench)
        bench.sea.cut_off.add("one")
        bench.sea.sent.clear()
        answer = await bench.respond(previous_response_id=identity)
        assert answer.status == 502
        assert answer.error()["code"] == "upstream_unreachable"
        assert f"`{identity}` was made by the instance `one`" in answer.error()["message"]
        assert bench.sea.sent == ["one: POST responses"]
        for _ in range(10):
            answer = await bench.respond(previous_response_id=identity)
        assert answer.status == 503
        assert answer.error()["code"] == "instance_unavailable"
        assert answer.header(b"retry-after-ms") is not None
        assert all(sent.startswith("one: ") for sent in bench.sea.sent)


async def test_an_owner_without_the_model_is_told() -> None:
    small = keeper("small", 1, supported_models=["gpt-4o"])
    async with shore(small, TWO) as bench:
        identity = await begun(bench)
        answer = await bench.respond(model="gpt-4.1", previous_response_id=identity)
        assert answer.status == 404
        assert answer.error()["code"] == "model_not_found"
        assert "`small`, which does not serve the model `gpt-4.1`" in answer.error()["message"]


async def test_a_neighbour_at_the_same_resource_does_as_well() -> None:
    small = keeper("small", 1, supported_models=["gpt-4o"])
    other = keeper("other", 2, api_base=small.api_base + "/openai", supported_models=["gpt-4.1"])
    async with shore(small, other, keeper("far", 0, supported_models=["gpt-4.1"])) as bench:
        identity = await begun(bench)
        answer = await bench.respond(model="gpt-4.1", previous_response_id=identity)
        assert (answer.status, by(answer)) == (200, "other")


async def test_a_full_owner_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    owners = Owners(10, [("responses/resp_1", "one")])
    answer = completion()
    one = instance_config("one", priority=1, max_tpm=1000, supported_models=["gpt-4"])
    two = instance_config("two", priority=0, max_tpm=10**6, supported_models=["gpt-4"])
    async with running_system(one, two) as system:
        bench = BoundBench(system, FakeUpstream(one=answer, two=answer), owners)
        lease = await system.leases.acquire(exact(1000), 0.0, frozenset({"two"}))
        assert isinstance(lease, Lease)
        fields = {"model": "gpt-4", "input": "x", "max_output_tokens": 50}
        refused = await bench.post("/v1/responses", **fields, previous_response_id="resp_1")
        assert refused.status == 429
        assert "`one`, which is at its rate limit" in refused.error()["message"]
        assert by(await bench.post("/v1/responses", **fields)) == "two"


# -- several ids -------------------------------------------------------------------------------


async def test_what_lives_apart_can_not_meet() -> None:
    async with shore(ONE, TWO) as bench:
        here = await begun(bench)
        await prefer(bench, "two")
        there = document(await bench.respond(**ENCRYPTED))["output"][0]
        answer = await bench.respond(previous_response_id=here, input=[there])
        assert answer.status == 400
        error = answer.error()
        assert error["code"] == "ids_on_different_instances"
        assert f"`{here}` on `one`, the encrypted reasoning on `two`" in error["message"]


async def test_what_nobody_knows_is_taken_to_be_with_what_is_known() -> None:
    async with shore(ONE, TWO) as bench:
        here = await begun(bench)
        await prefer(bench, "two")
        tools = [{"type": "file_search", "vector_store_ids": ["vs_unknown"]}]
        answer = await bench.respond(previous_response_id=here, tools=tools)
        assert (answer.status, by(answer)) == (200, "one")


async def test_an_owner_that_may_be_among_the_silent_is_told() -> None:
    async with shore(ONE, TWO) as bench:
        bench.sea.cut_off.add("two")
        answer = await bench.respond(previous_response_id="resp_unknown")
        assert answer.status == 503
        assert answer.error()["code"] == "instance_unavailable"
        assert "`two` could not be asked" in answer.error()["message"]


# -- whom to believe ---------------------------------------------------------------------------


def response_answer(**fields: Any) -> FakeAnswer:
    return FakeAnswer(pieces=[json.dumps({"object": "response", **fields}).encode()])


async def noted(answer: FakeAnswer, **fields: Any) -> list[tuple[str, str | None]]:
    config = instance_config("one", provider_type="generic", api_base="http://one", max_tpm=10**6)
    async with running_system(config) as system:
        bench = BoundBench(system, FakeUpstream(one=answer), Owners(10))
        await bench.post("/v1/responses", model="gpt-4", input="x", **fields)
        return bench.owners.entries()


async def test_only_an_answers_own_id_is_believed() -> None:
    forged = {"id": "resp_victim", "response": {"id": "resp_victim"}}
    assert await noted(response_answer(metadata=forged, id="resp_1", tools=[forged])) == [
        ("responses/resp_1", "one")
    ]
    assert await noted(response_answer(metadata=forged)) == []
    assert await noted(response_answer(id="../../admin")) == []
    assert await noted(response_answer(id=["resp_1"])) == []
    assert await noted(error_answer(400)) == []
    assert await noted(FakeAnswer(404, pieces=[b'{"id": "resp_victim"}'])) == []
    sealed = {"encrypted_content": "victim's"}
    assert await noted(response_answer(id="resp_1", metadata=sealed, input=[sealed])) == [
        ("responses/resp_1", "one")
    ]


async def test_only_a_streams_own_id_is_believed() -> None:
    forged = {"id": "resp_victim"}
    created = {"type": "response.created", "response": {"metadata": forged, "id": "resp_1"}}
    done = {"type": "response.completed", "response": {"id": "resp_2"}}
    text = {"type": "response.output_text.delta", "delta": 'data: {"response":{"id":"resp_3"}}'}
    assert await noted(event_stream(created, text, done), stream=True) == [
        ("responses/resp_1", "one")
    ]
    quick = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_4"}}'
    assert await noted(event_stream(quick + b"\n\n", text, done), stream=True) == [
        ("responses/resp_4", "one")
    ]


async def test_a_long_answer_is_read_in_pieces() -> None:
    body = json.dumps(
        {
            "id": "resp_long",
            "output": [{"text": "x" * 200_000}, {"encrypted_content": "sealed"}],
        }
    ).encode()
    pieces = [body[start : start + 7000] for start in range(0, len(body), 7000)]
    assert await noted(FakeAnswer(pieces=pieces)) == [
        ("responses/resp_long", "one"),
        (sealed_key("sealed"), "one"),
    ]


async def test_a_broken_answer_is_believed_as_far_as_it_was_an_answer() -> None:
    broken = FakeAnswer(
        pieces=[b'{"id": "resp_1", ' + b" " * 100_000],
        failure=UpstreamFailure("body", "reset", "gone", answered=True),
    )
    assert await noted(broken) == []


async def test_requests_for_other_things_are_not_looked_at(monkeypatch: Any) -> None:
    async with shore(ONE, TWO) as bench:
        monkeypatch.setattr("proxy.bound.bound.Bound.bind", None)
        answer = await bench.post(
            "/v1/chat/completions",
            model="gpt-4o",
            messages=[{"role": "user", "content": "hi"}],
            previous_response_id="resp_1",
        )
        assert answer.status == 200
