"""Files, batches and whatever else is kept: each request goes to where the thing is."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import trio
from bound_bench import BoundBench, Shore, by, document, fakes, generic, keeper, made, shore
from fakes import FakeAnswer, FakeRequest, FakeUpstream, FakeWriter, error_answer, event_stream
from harness import running_system
from trio.testing import wait_all_tasks_blocked

from proxy.bound import listing as listing_module
from proxy.bound.listing import LISTINGS_AT_ONCE
from proxy.bound.owners import Owners
from proxy.exchange.ports import UpstreamFailure, UpstreamRequest

ONE, TWO = keeper("one", 1), keeper("two", 2)
CUT = UpstreamFailure("body", "reset", "reset", answered=True)
LATE = UpstreamFailure("head", "timeout", "nothing came")
REFUSED = UpstreamFailure("connect", "refused", "connection refused")
BOUNDARY = "multipart/form-data; boundary=b"


def form(content: bytes = b'{"custom_id":"1"}\n', purpose: str = "batch") -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
        + purpose.encode()
        + b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )


async def upload(bench: BoundBench, address: str = "/v1", **fields: Any) -> FakeWriter:
    return await bench.ask("POST", f"{address}/files", form(**fields), content_type=BOUNDARY)


async def prefer(bench: BoundBench, name: str) -> None:
    await bench.system.administration.update_config(name, {"priority": 0})


def ids(listed: FakeWriter) -> list[str]:
    return [item["id"] for item in document(listed)["data"]]


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


# -- making something --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failing",
    [REFUSED, *map(error_answer, (404, 405, 501, 429, 401, 403))],
    ids=["refused", "404", "405", "501", "429", "401", "403"],
)
async def test_something_new_is_made_elsewhere_if_one_can_not(failing: Any) -> None:
    async with fakes(one=failing, two=made("file-1")) as bench:
        answer = await upload(bench)
        assert (answer.status, by(answer)) == (200, "two")
        assert bench.owners.entries() == [("files/file-1", "two")]
        sent = bench.upstream.requests
        assert [request.url for request in sent] == ["http://one/v1/files", "http://two/v1/files"]
        record = bench.records[0]
        assert (record.operation, record.attempts, record.instance) == ("files", 2, "two")
        assert len(record.trail) == 2


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (error_answer(500), 500),
        (error_answer(503), 503),
        (error_answer(408), 408),
        (LATE, 504),
        (UpstreamFailure("send", "reset", "reset"), 502),
    ],
)
async def test_what_may_have_been_made_is_not_made_again(failure: Any, status: int) -> None:
    """Only the client can know whether it may be there twice; if it tries again, another one is
    asked first."""
    async with fakes(one=failure, two=made("thread_1")) as bench:
        first = await bench.post("/v1/threads")
        assert first.status == status
        assert first.header(b"x-proxy-attempts") == b"1"
        again = await bench.post("/v1/threads")
        assert (again.status, by(again)) == (200, "two")
        assert [request.config.name for request in bench.upstream.requests] == ["one", "two"]
        await bench.post("/v1/conversations")
        assert bench.upstream.requests[-1].config.name == "one", "what it makes else is its own"


async def test_what_is_only_read_may_be_read_again() -> None:
    owners = Owners(10, [("files/file-1", "same_1")])
    async with fakes(owners, same_1=error_answer(500), same_2=made("file-1")) as bench:
        answer = await bench.ask("GET", "/v1/files/file-1")
        assert (answer.status, by(answer)) == (200, "same_2")
        posted = await bench.post("/v1/vector_stores", file_ids=["file-1"])
        assert posted.status == 500


async def test_whoever_can_not_be_reached_has_done_nothing() -> None:
    owners = Owners(10, [("files/file-1", "same_1")])
    async with fakes(owners, same_1=REFUSED, same_2=made("vs_1")) as bench:
        posted = await bench.post("/v1/vector_stores", file_ids=["file-1"])
        assert (posted.status, by(posted)) == (200, "same_2")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_nobody_is_tried_after_the_clients_own_timeout(
    method: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def slow(request: UpstreamRequest) -> FakeAnswer:
        await trio.sleep(3)
        return error_answer(500)

    owners = Owners(10, [("files/file-1", "same_1")])
    async with fakes(owners, same_1=slow, same_2=slow, same_3=slow) as bench:
        for seconds, attempts in (("2", 1), ("4", 2), ("60", 3)):
            answer = await bench.ask(method, "/v1/files/file-1", x_stainless_read_timeout=seconds)
            assert answer.status == 500
            assert answer.header(b"x-proxy-attempts") == b"%d" % attempts


@pytest.mark.parametrize("path", ["files", "files/file-1", "files/file-1/content"])
async def test_where_the_upstream_sends_us_is_not_the_clients_business(path: str) -> None:
    moved = FakeAnswer(307, [(b"location", b"https://one.internal/?sig=abc")], pieces=[b"moved"])
    async with fakes(Owners(10, [("files/file-1", "one")]), one=moved) as bench:
        answer = await bench.ask("GET", f"/v1/{path}")
        assert answer.status == 502
        assert answer.error()["code"] == "upstream_redirected"
        assert b"internal" not in answer.body + repr(answer.headers).encode()


async def test_of_several_failures_the_one_that_tells_most_is_told() -> None:
    async with fakes(one=error_answer(429, "x"), two=error_answer(403), three=REFUSED) as bench:
        answer = await upload(bench)
        assert (answer.status, by(answer)) == (429, "one")


async def test_a_clients_mistake_goes_nowhere_else() -> None:
    async with fakes(one=error_answer(400, "bad"), two=made("file-1")) as bench:
        answer = await upload(bench)
        assert (answer.status, by(answer)) == (400, "one")
        assert answer.header(b"x-proxy-attempts") == b"1"


async def test_refusals_of_such_calls_keep_nothing_from_inference() -> None:
    for status in (401, 403, 404, 409, 429, 302):
        async with fakes(one=error_answer(status, "DeploymentNotFound")) as bench:
            for _ in range(10):
                await upload(bench)
            standing = bench.system.standing("one")
            assert standing.error_count == 0, status
            assert standing.status(trio.current_time()) == "healthy"


async def test_an_answer_to_such_a_call_is_not_held_against_inference() -> None:
    """Which files it asks for is the client's choice, and no other client must suffer for it."""
    broken = FakeAnswer(pieces=[b"x" * 70_000, b"x"], failure=CUT)
    async with fakes(one=[*[error_answer(503)] * 20, broken], two=error_answer(404)) as bench:
        for number in range(10):
            await upload(bench)
            await bench.ask("GET", f"/v1/files/file-{number}")
        standing = bench.system.standing("one")
        assert standing.error_count >= 20
        assert standing.breaker.state == "closed"


@pytest.mark.parametrize("failure", [REFUSED, LATE])
async def test_whoever_does_not_answer_such_calls_does_not_answer_others(failure: Any) -> None:
    async with fakes(one=failure) as bench:
        for _ in range(5):
            await upload(bench)
        assert bench.system.standing("one").breaker.state == "open"


async def test_answers_to_such_calls_clear_nothing_of_inference() -> None:
    async def one(request: UpstreamRequest) -> FakeAnswer:
        return made("file-1") if request.method == "GET" else error_answer(500)

    async with fakes(Owners(10, [("files/file-1", "one")]), one=one) as bench:
        for _ in range(5):
            assert (await bench.ask("GET", "/v1/files/file-1")).status == 200
            assert (await bench.post("/v1/embeddings", model="gpt-4", input="x")).status == 500
        standing = bench.system.standing("one")
        assert standing.breaker.state == "open"
        assert standing.successful_requests == 5


async def test_a_key_that_an_error_quotes_is_not_passed_on() -> None:
    quoting = error_answer(400, message="bad: Bearer key-of-one-0123456789 was used")
    async with fakes(one=quoting) as bench:
        answer = await upload(bench)
        assert answer.status == 400
        assert b"key-of-one" not in answer.body


async def test_the_proxys_own_credentials_are_not_the_clients_business() -> None:
    async with fakes(one=error_answer(401, message="bad key key-of-one-0123456789")) as bench:
        answer = await upload(bench)
        assert answer.status == 502
        assert b"key-of-one" not in answer.body


async def test_nobody_is_there() -> None:
    async with fakes() as bench:
        answer = await upload(bench)
        assert answer.status == 503
        assert answer.error()["code"] == "no_instance_available"
        unknown = await bench.ask("GET", "/v1/files/file-1")
        assert unknown.status == 503


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


async def test_an_upload_is_tried_where_it_could_be_for_nobody_can_be_asked() -> None:
    async with fakes(one=error_answer(404), two=made("part_1")) as bench:
        part = await bench.ask("POST", "/v1/uploads/upload_1/parts", form(), content_type=BOUNDARY)
        assert (part.status, by(part)) == (200, "two")
        assert bench.owners.find("uploads/upload_1") == "two"
        complete = made("upload_1", file={"id": "file-7"})
        bench.upstream._answers["two"] = [complete]
        done = await bench.post("/v1/uploads/upload_1/complete", part_ids=["part_1"])
        assert by(done) == "two"
        assert bench.owners.find("files/file-7") == "two"


async def test_a_slow_large_upload_has_the_time_that_the_client_had() -> None:
    async with fakes(one=made("file-1")) as bench:
        content = b"x" * 1_600_000
        body = form(content)
        await bench.ask(
            "POST", "/v1/files", body, content_type=BOUNDARY, content_length=str(len(body))
        )
        assert bench.upstream.requests[0].timeout_s == pytest.approx(60 + len(body) / 16384)


async def test_a_client_that_leaves_costs_nobody_anything() -> None:
    async def never(request: UpstreamRequest) -> FakeAnswer:
        await trio.sleep_forever()
        raise AssertionError

    async with fakes(one=never) as bench:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload, bench)
            await wait_all_tasks_blocked()
            assert len(bench.upstream.requests) == 1
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert bench.records[0].status == 499
        assert bench.system.standing("one").error_count == 0


# -- what does not exist -----------------------------------------------------------------------


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


# -- lists -------------------------------------------------------------------------------------


async def stocked(bench: Shore) -> list[str]:
    """Three files on each of two instances; their ids."""
    found = []
    for number in range(6):
        await prefer(bench, "one" if number % 2 else "two")
        other = "two" if number % 2 else "one"
        await bench.system.administration.update_config(other, {"priority": 5})
        found.append(document(await upload(bench))["id"])
    return found


async def test_a_list_is_made_of_all() -> None:
    async with shore(ONE, TWO) as bench:
        everything = await stocked(bench)
        listed = await bench.ask("GET", "/v1/files")
        assert listed.status == 200
        page = document(listed)
        assert sorted(ids(listed)) == sorted(everything)
        assert (page["object"], page["has_more"]) == ("list", False)
        assert (page["first_id"], page["last_id"]) == (ids(listed)[0], ids(listed)[-1])
        assert listed.header(b"x-proxy-unanswered") is None
        assert document(await bench.ask("GET", "/v1/files", query=b"purpose=x"))["data"] == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_page_after_page(order: str) -> None:
    async with shore(ONE, TWO) as bench:
        everything = await stocked(bench)
        seen: list[str] = []
        query = f"limit=2&order={order}"
        for _ in range(3):
            listed = await bench.ask("GET", "/v1/files", query=query.encode())
            assert len(ids(listed)) == 2
            seen += ids(listed)
            query = f"limit=2&order={order}&after={seen[-1]}"
        assert sorted(seen) == sorted(everything)
        assert document(listed)["has_more"] is False
        assert ids(await bench.ask("GET", "/v1/files", query=query.encode())) == []


async def test_batches_come_in_pages_too() -> None:
    async with shore(ONE, TWO) as bench:
        made_ids = []
        for name in ("one", "two") * 12:
            await prefer(bench, name)
            other = "two" if name == "one" else "one"
            await bench.system.administration.update_config(other, {"priority": 5})
            file_id = document(await upload(bench))["id"]
            begun = await bench.post("/v1/batches", input_file_id=file_id, endpoint="/v1/x")
            made_ids.append(document(begun)["id"])
        first = await bench.ask("GET", "/v1/batches")
        assert len(ids(first)) == 20
        assert document(first)["has_more"] is True
        second = await bench.ask("GET", "/v1/batches", query=f"after={ids(first)[-1]}".encode())
        assert sorted(ids(first) + ids(second)) == sorted(made_ids)


async def test_a_list_tells_who_has_not_answered() -> None:
    async with shore(ONE, TWO) as bench:
        everything = await stocked(bench)
        bench.sea.cut_off.add("two")
        listed = await bench.ask("GET", "/v1/files")
        assert listed.status == 200
        assert listed.header(b"x-proxy-unanswered") == b"two"
        assert 0 < len(ids(listed)) < len(everything)
        bench.sea.cut_off.add("one")
        nothing = await bench.ask("GET", "/v1/files")
        assert nothing.status == 503
        assert "`one`, `two`" in nothing.error()["message"]


async def test_a_cursor_whose_owner_can_not_tell_is_not_the_clients_mistake() -> None:
    owners = Owners(10, [("files/file-1", "one")])
    async with fakes(owners, one=error_answer(401), two=error_answer(404)) as bench:
        answer = await bench.ask("GET", "/v1/files", query=b"after=file-1")
        assert answer.status == 503
        assert "`one`" in answer.error()["message"]


async def test_only_so_many_lists_are_in_progress(autojump_clock: trio.testing.MockClock) -> None:
    under_way = most = 0

    async def listing(request: UpstreamRequest) -> FakeAnswer:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(4)
        under_way -= 1
        return FakeAnswer(pieces=[b'{"data": []}'])

    async with fakes(one=listing, two=error_answer(404)) as bench:
        writers = [FakeWriter() for _ in range(3 * LISTINGS_AT_ONCE)]
        async with trio.open_nursery() as nursery:
            for writer in writers:
                request = FakeRequest("/v1/files", [], "GET", headers=[(b"x-max-wait-ms", b"7000")])
                nursery.start_soon(bench.exchange.handle, request, writer)
        assert most == LISTINGS_AT_ONCE
        statuses = sorted(writer.status for writer in writers)
        assert statuses == [200] * 2 * LISTINGS_AT_ONCE + [503] * LISTINGS_AT_ONCE


async def test_others_have_their_turn_between_the_steps_of_a_list(monkeypatch: Any) -> None:
    steps: list[str] = []

    def watched(name: str) -> Any:
        step = getattr(listing_module, name)

        def watching(*given: Any, **named: Any) -> Any:
            steps.append(name)
            return step(*given, **named)

        return watching

    class Turns(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            steps.append("turn")

    long = ("json_object", "in_order", "merged", "to_json")
    for name in long:
        monkeypatch.setattr(listing_module, name, watched(name))
    page = FakeAnswer(pieces=[b'{"data": [{"id": "file-1"}]}'])
    async with fakes(one=page, two=page) as bench:
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        listed = await bench.ask("GET", "/v1/files")
        trio.lowlevel.remove_instrument(turns)
    assert listed.status == 200
    assert sorted(filter(long.__contains__, steps)) == sorted([*long, *long[:2]])
    assert all("turn" in pair for pair in itertools.pairwise(steps))


async def test_what_is_listed_is_remembered() -> None:
    async with shore(ONE, TWO) as bench:
        everything = await stocked(bench)
        for file_id in everything:
            bench.owners.forget(f"files/{file_id}")
        await bench.ask("GET", "/v1/files")
        bench.sea.sent.clear()
        for file_id in everything:
            assert (await bench.ask("GET", f"/v1/files/{file_id}")).status == 200
        assert len(bench.sea.sent) == len(everything)


async def test_an_upstream_without_the_api_has_nothing_to_list() -> None:
    one = FakeAnswer(pieces=[json.dumps({"data": [{"id": "batch_1"}]}).encode()])
    async with fakes(one=one, two=error_answer(404)) as bench:
        listed = await bench.ask("GET", "/v1/batches")
        assert ids(listed) == ["batch_1"]
        assert listed.header(b"x-proxy-unanswered") is None


@pytest.mark.parametrize(
    "odd",
    [
        FakeAnswer(pieces=[b"not JSON"]),
        FakeAnswer(pieces=[b'{"data": "none"}']),
        FakeAnswer(pieces=[b" " * 2**20] * 9),
        error_answer(403),
        error_answer(429),
        error_answer(500),
        REFUSED,
    ],
    ids=["text", "no list", "too long", "403", "429", "500", "refused"],
)
async def test_what_is_no_list_counts_as_no_answer(odd: Any) -> None:
    one = FakeAnswer(pieces=[json.dumps({"data": [{"id": "batch_1"}, 7]}).encode()])
    async with fakes(one=one, two=odd) as bench:
        listed = await bench.ask("GET", "/v1/batches")
        assert ids(listed) == ["batch_1"]
        assert listed.header(b"x-proxy-unanswered") == b"two"


async def test_a_list_without_an_end_is_given_up() -> None:
    async def endless(request: UpstreamRequest) -> FakeAnswer:
        number = len(bench.upstream.requests)
        items = [{"id": f"batch_{number}_{n}", "created_at": 9e9} for n in range(2)]
        return FakeAnswer(pieces=[json.dumps({"data": items, "has_more": True}).encode()])

    old = {"id": "batch_old", "created_at": 5}
    one = [FakeAnswer(pieces=[json.dumps(each).encode()]) for each in (old, {"data": []})]
    owners = Owners(10, [("batches/batch_old", "one")])
    async with fakes(owners, one=one, two=endless) as bench:
        listed = await bench.ask("GET", "/v1/batches", query=b"after=batch_old")
        assert ids(listed) == []
        assert listed.header(b"x-proxy-unanswered") == b"two"
        assert len(bench.upstream.requests) < 20


async def test_a_cursor_that_is_not_there() -> None:
    async with shore(ONE, TWO) as bench:
        await stocked(bench)
        answer = await bench.ask("GET", "/v1/files", query=b"after=file-nobody")
        assert answer.status == 400
        assert answer.error()["param"] == "after"


async def test_a_clients_mistake_in_a_list_is_told_as_the_upstream_told_it() -> None:
    wrong = [error_answer(400, "bad_purpose") for _ in range(2)]
    async with fakes(one=wrong[0], two=wrong[1]) as bench:
        answer = await bench.ask("GET", "/v1/files", query=b"purpose=x")
        assert answer.status == 400
        assert answer.error()["code"] == "bad_purpose"


async def test_one_upstream_lists_for_itself() -> None:
    same = keeper("same", 3, api_base=ONE.api_base)
    async with shore(ONE, same) as bench:
        await upload(bench)
        listed = await bench.ask("GET", "/v1/files", query=b"limit=1&before=x")
        assert (listed.status, by(listed)) == (200, "one")
        assert len(ids(listed)) == 1


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
