"""Something new is made once: where it can be, and not again where it may have been."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from bound_bench import by, fakes, made
from fakes import REFUSED, FakeAnswer, error_answer
from kept_things import BOUNDARY, form, upload
from trio.testing import wait_all_tasks_blocked

from proxy.bound.owners import Owners
from proxy.exchange.ports import UpstreamFailure, UpstreamRequest

CUT = UpstreamFailure("body", "reset", "reset", answered=True)
LATE = UpstreamFailure("head", "timeout", "nothing came")


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
