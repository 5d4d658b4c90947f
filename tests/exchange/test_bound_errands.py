"""Files, batches and whatever else is kept: each request goes to where the thing is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bound_bench import BoundBench, by, document, fakes, generic, keeper, made, shore
from fakes import FakeAnswer, FakeUpstream, error_answer, event_stream
from harness import running_system
from kept_things import ONE, TWO, prefer, upload

from proxy.bound.owners import Owners
from proxy.exchange.ports import UpstreamFailure


@pytest.mark.parametrize("address", ["/v1", "/openai/v1", "/openai"])
async def test_a_batch_goes_where_its_file_is(address: str) -> None:
    async with shore(ONE, TWO) as bench:
        uploaded = await upload(bench, address)
        assert (uploaded.status, by(uploaded)) == (200, "one")
        file_id = document(uploaded)["id"]
        await prefer(bench, "two")
        begun = await bench.post(
            f"{address}/batches", input_file_id=file_id, endpoint="/v1/responses"
        )
        assert (begun.status, by(begun)) == (200, "one")
        batch_id = document(begun)["id"]
        for method, path in (
            ("GET", f"files/{file_id}"),
            ("GET", f"files/{file_id}/content"),
            ("GET", f"batches/{batch_id}"),
            ("POST", f"batches/{batch_id}/cancel"),
            ("DELETE", f"files/{file_id}"),
        ):
            answer = await bench.ask(method, f"{address}/{path}")
            assert (answer.status, by(answer)) == (200, "one"), path
        content = await bench.ask("GET", f"{address}/files/{file_id}/content")
        assert content.status == 404
        assert bench.owners.find(f"files/{file_id}") is None
        assert by(await upload(bench, address)) == "two"
        sent = [each.split("?")[0] for each in bench.sea.sent]
        assert sent[0] == "one: POST files"


async def test_what_a_batch_has_made_is_remembered() -> None:
    owners = Owners(10, [("batches/batch_1", "one")])
    batch = {"id": "batch_1", "output_file_id": "file-out", "error_file_id": "file-err"}
    answer = FakeAnswer(pieces=[json.dumps(batch).encode()])
    async with fakes(owners, one=answer, two=error_answer(404)) as bench:
        await bench.ask("GET", "/v1/batches/batch_1")
        await bench.ask("GET", "/v1/files/file-out/content")
        assert [request.config.name for request in bench.upstream.requests] == ["one", "one"]


async def test_a_file_comes_through_as_it_is_both_ways() -> None:
    content = bytes(range(256)) * 20_000
    async with shore(ONE, TWO) as bench:
        uploaded = await upload(bench, content=content, purpose="user_data")
        assert document(uploaded)["bytes"] == len(content)
        downloaded = await bench.ask("GET", f"/v1/files/{document(uploaded)['id']}/content")
        assert downloaded.body == content
        assert downloaded.header(b"content-type") == b"application/octet-stream"
        assert downloaded.header(b"content-length") in (None, b"%d" % len(content))


async def test_a_response_is_read_cancelled_and_deleted_where_it_was_made() -> None:
    async with shore(ONE, TWO) as bench:
        made = await bench.respond(background=True)
        identity = document(made)["id"]
        await prefer(bench, "two")
        for method, path in (
            ("GET", identity),
            ("GET", f"{identity}/input_items"),
            ("POST", f"{identity}/cancel"),
        ):
            answer = await bench.ask(method, f"/v1/responses/{path}")
            assert (answer.status, by(answer)) == (200, "one"), path
        streamed = await bench.ask(
            "GET", f"/v1/responses/{identity}", query=b"stream=true&starting_after=0"
        )
        assert (streamed.status, by(streamed)) == (200, "one")
        assert b'"sequence_number":0,' not in streamed.body
        assert b'"response.completed"' in streamed.body
        assert (await bench.ask("DELETE", f"/v1/responses/{identity}")).status == 200
        assert bench.owners.find(f"responses/{identity}") is None
        assert (await bench.ask("GET", f"/v1/responses/{identity}")).status == 404


async def test_an_unknown_file_is_searched_for_and_remembered() -> None:
    async with shore(ONE, TWO) as bench:
        file_id = document(await upload(bench))["id"]
        bench.owners.forget(f"files/{file_id}")
        await prefer(bench, "two")
        bench.sea.sent.clear()
        assert (await bench.ask("GET", f"/v1/files/{file_id}/content")).status == 200
        assert bench.sea.sent == [
            f"two: GET files/{file_id}",
            f"one: GET files/{file_id}",
            f"one: GET files/{file_id}/content",
        ]
        bench.sea.sent.clear()
        assert (await bench.ask("GET", f"/v1/files/{file_id}")).status == 200
        assert len(bench.sea.sent) == 1


async def test_nobody_has_it() -> None:
    async with shore(ONE, TWO) as bench:
        answer = await bench.ask("GET", "/v1/files/file-nobody")
        assert answer.status == 404
        assert "file-nobody" in answer.error()["message"]
        sent = len(bench.sea.sent)
        assert (await bench.ask("DELETE", "/v1/files/file-nobody")).status == 404
        assert len(bench.sea.sent) == sent + 1
        bench.sea.cut_off.add("two")
        unsure = await bench.ask("GET", "/v1/files/file-other")
        assert unsure.status == 503
        assert "`two` could not be asked" in unsure.error()["message"]
        assert len(bench.owners) == 0
        assert bench.system.standing("one").breaker.state == "closed"


async def test_what_its_owner_does_not_have_any_more_is_looked_for_next_time() -> None:
    async with shore(ONE, TWO) as bench:
        file_id = document(await upload(bench))["id"]
        bench.owners.remember(f"files/{file_id}", "two")  # as if `two` had been that resource
        assert (await bench.ask("GET", f"/v1/files/{file_id}/content")).status == 404
        assert bench.owners.find(f"files/{file_id}") == "two"
        assert (await bench.ask("GET", f"/v1/files/{file_id}")).status == 404
        assert bench.owners.find(f"files/{file_id}") is None
        assert (await bench.ask("GET", f"/v1/files/{file_id}")).status == 200
        assert bench.owners.find(f"files/{file_id}") == "one"


async def test_the_only_owner_under_a_new_name_is_found() -> None:
    async with shore(ONE) as bench:
        file_id = document(await upload(bench))["id"]
        await bench.system.administration.remove("one")
        await bench.system.administration.add(ONE.model_copy(update={"name": "uno"}))
        found = await bench.ask("GET", f"/v1/files/{file_id}")
        assert (found.status, by(found)) == (200, "uno")


@pytest.mark.parametrize(
    ("situation", "status", "code"),
    [
        ("removed", 404, "instance_removed"),
        ("disabled", 503, "instance_disabled"),
        ("cut off", 502, "upstream_unreachable"),
    ],
)
async def test_an_owner_that_is_not_there_is_told(situation: str, status: int, code: str) -> None:
    async with shore(ONE, TWO) as bench:
        file_id = document(await upload(bench))["id"]
        if situation == "removed":
            await bench.system.administration.remove("one")
        elif situation == "disabled":
            await bench.system.administration.update_config("one", {"enabled": False})
        else:
            bench.sea.cut_off.add("one")
        for method, path in (("GET", f"files/{file_id}"), ("DELETE", f"files/{file_id}")):
            answer = await bench.ask(method, f"/v1/{path}")
            assert (answer.status, answer.error()["code"]) == (status, code)
            assert f"`{file_id}` was made by the instance `one`" in answer.error()["message"]
        begun = await bench.post("/v1/batches", input_file_id=file_id, endpoint="/v1/responses")
        assert begun.error()["code"] == code
        assert all("two: DELETE" not in sent for sent in bench.sea.sent)


async def test_things_that_live_apart_can_not_be_used_together() -> None:
    owners = Owners(10, [("files/file-1", "one"), ("files/file-2", "two")])
    async with shore(ONE, TWO, owners=owners) as bench:
        answer = await bench.post("/v1/vector_stores", file_ids=["file-1", "file-2"])
        assert answer.status == 400
        assert answer.error()["code"] == "ids_on_different_instances"
        assert "`file-1` on `one`, `file-2` on `two`" in answer.error()["message"]
        assert bench.sea.sent == []


async def test_a_full_instance_still_serves_what_uses_no_tokens() -> None:
    async with shore(keeper("one", 1, max_tpm=1)) as bench:
        assert (await bench.respond()).status == 429
        assert (await upload(bench)).status == 200


async def test_an_assistant_is_made_where_its_model_is_and_under_the_upstreams_name() -> None:
    upstream = FakeUpstream(one=made("asst_0"), two=made("asst_1"))
    one = generic("one", 1)
    two = generic("two", 2, supported_models=[], model_deployments={"gpt-4o": "deployed"})
    async with running_system(one, two) as system:
        bench = BoundBench(system, upstream, Owners(10))
        answer = await bench.post("/v1/assistants", model="gpt-4o", name="a")
        assert (answer.status, by(answer)) == (200, "two")
        sent = upstream.requests[0]
        assert isinstance(sent.body, bytes)
        assert json.loads(sent.body) == {"model": "deployed", "name": "a"}
        unknown = await bench.post("/v1/assistants", model="nope")
        assert unknown.error()["code"] == "model_not_found"


async def test_a_thread_and_its_run_stay_together() -> None:
    owners = Owners(10, [("assistants/asst_1", "two")])
    created = {"id": "run_1", "object": "thread.run", "thread_id": "thread_1"}
    stream = event_stream(
        b"event: thread.run.created\ndata: " + json.dumps(created).encode() + b"\n\n",
        b'event: thread.message.delta\ndata: {"id":"msg_1","delta":{}}\n\n',
        b"event: done\ndata: [DONE]\n\n",
    )
    answers: list[Any] = [stream, made("msg_1")]
    async with fakes(owners, one=error_answer(404), two=answers) as bench:
        run = await bench.post("/v1/threads/runs", assistant_id="asst_1", stream=True)
        assert (run.status, by(run)) == (200, "two")
        assert run.body.endswith(b"event: done\ndata: [DONE]\n\n")
        assert bench.owners.find("threads/thread_1") == "two"
        assert bench.records[0].stream
        message = await bench.post("/v1/threads/thread_1/messages", role="user", content="x")
        assert by(message) == "two"
        assert bench.upstream.requests[-1].url == "http://two/v1/threads/thread_1/messages"


async def test_a_stream_that_breaks_ends_in_an_error() -> None:
    owners = Owners(10, [("responses/resp_1", "one")])
    reset = UpstreamFailure("body", "reset", "gone", answered=True)
    text = {"type": "response.output_text.delta", "delta": "x"}
    async with fakes(owners, one=event_stream(text, failure=reset)) as bench:
        answer = await bench.ask("GET", "/v1/responses/resp_1", query=b"stream=true")
        assert answer.status == 200
        assert b"event: error" in answer.body
        assert bench.records[0].code == "upstream_interrupted"
        assert bench.system.standing("one").error_count == 1


async def test_an_error_in_a_stream_before_any_output_is_an_error() -> None:
    owners = Owners(10, [("responses/resp_1", "one")])
    error = {"type": "error", "error": {"type": "user_error", "message": "no"}}
    async with fakes(owners, one=event_stream(error)) as bench:
        answer = await bench.ask("GET", "/v1/responses/resp_1", query=b"stream=true")
        assert answer.status == 400


async def test_questions_are_asked_in_the_words_that_the_upstream_expects() -> None:
    answers = [made("x", data=[]) for _ in range(4)]
    async with fakes(one=[error_answer(404), *answers[:2]], two=answers[2:]) as bench:
        await bench.ask("GET", "/v1/threads/thread_1/messages")
        await bench.ask("GET", "/v1/vector_stores")
        await bench.ask("GET", "/v1/batches")
        asked = [
            (request.url, dict(request.headers).get(b"openai-beta"))
            for request in bench.upstream.requests
        ]
        assert ("http://two/v1/threads/thread_1", b"assistants=v2") in asked
        assert ("http://one/v1/vector_stores?order=desc&limit=20", b"assistants=v2") in asked
        assert ("http://one/v1/batches?order=desc&limit=20", None) in asked
        assert all(
            dict(request.headers)[b"authorization"].startswith(b"Bearer key-of-")
            for request in bench.upstream.requests
        )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/v1/files", 405),
        ("DELETE", "/v1/files", 405),
        ("POST", "/v1/files/file-1", 405),
        ("GET", "/v1/files/file-1/contents", 404),
        ("GET", "/v1/files/..", 404),
        ("GET", "/v1/files/%2e%2e", 404),
        ("GET", "/v1/files/a b", 404),
        ("GET", "/v1/files/../../admin", 404),
        ("GET", "/v1/files/" + "x" * 300, 404),
        ("GET", "/openai/deployments/d/files", 404),
    ],
)
async def test_addresses_that_are_none(method: str, path: str, status: int) -> None:
    async with fakes(one=made("x")) as bench:
        answer = await bench.ask(method, path)
        assert answer.status == status
        assert bench.upstream.requests == []


async def test_bodies_that_are_none() -> None:
    async with fakes(one=made("x")) as bench:
        assert (await bench.ask("POST", "/v1/batches", b"{")).status == 400
        assert (await bench.ask("POST", "/v1/batches", b"[]")).status == 400
        zipped = await bench.ask("POST", "/v1/batches", b"{}", content_encoding="gzip")
        assert zipped.status == 415
        assert bench.upstream.requests == []
        assert (await bench.ask("POST", "/v1/batches/batch_1/cancel")).status == 200


@pytest.mark.parametrize("shown_before", [True, False])
async def test_an_error_in_a_stream_that_quotes_the_key_is_passed_on_without_it(
    shown_before: bool,
) -> None:
    key = generic("one", 0).api_key
    text = {"type": "response.output_text.delta", "sequence_number": 1, "delta": "x"}
    failed = {"type": "error", "code": "400", "message": f"not with {key}", "sequence_number": 2}
    stream = event_stream(*([text] if shown_before else []), failed)
    owners = Owners(10, [("responses/resp_1", "one")])
    async with fakes(owners, one=stream) as bench:
        answer = await bench.ask("GET", "/v1/responses/resp_1", query=b"stream=true")
        assert b"not with ***" in answer.body
        assert key.encode() not in answer.body
