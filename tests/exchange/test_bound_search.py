"""What nobody is known to have is searched for: soon, once, and without a guess."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from bound_bench import Faked, Slow, by, fakes, made
from fakes import REFUSED, FakeRequest, FakeWriter, error_answer
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.bound.search import AT_ONCE, LEAST_S, SLOW_S

LACKING = error_answer(404, "not_found")


def asked(bench: Faked) -> list[str]:
    return [request.config.name for request in bench.upstream.requests]


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"x_max_wait_ms": "100"}, LEAST_S),
        ({"x_max_wait_ms": "7000"}, 7.0),
        ({"x_stainless_read_timeout": "2"}, 2.0),
        ({}, 10.0),
    ],
)
async def test_it_ends_in_time(
    headers: dict[str, Any], wait_s: float, autojump_clock: MockClock
) -> None:
    silent = {name: Slow(100, LACKING) for name in ("a", "b", "c", "d")}
    async with fakes(**silent) as bench:
        started = trio.current_time()
        answer = await bench.ask("GET", "/v1/files/file-1", **headers)
        assert trio.current_time() - started == pytest.approx(wait_s)
        assert answer.status == 503
        assert answer.error()["code"] == "instance_unavailable"
        for name in silent:
            assert bench.system.standing(name).breaker.state == "closed"


async def test_who_is_slow_holds_up_nobody(autojump_clock: MockClock) -> None:
    answers = {"slow": Slow(9, LACKING), "lacking": LACKING, "has": made("file-1")}
    async with fakes(**answers) as bench:
        started = trio.current_time()
        answer = await bench.ask("GET", "/v1/files/file-1")
        assert (answer.status, by(answer)) == (200, "has")
        assert trio.current_time() - started == pytest.approx(SLOW_S)
        assert asked(bench) == ["slow", "lacking", "has", "has"]


async def test_nobody_has_it_only_when_all_have_said_so(autojump_clock: MockClock) -> None:
    async with fakes(slow=Slow(4, LACKING), other=LACKING) as bench:
        answer = await bench.ask("GET", "/v1/files/file-1")
        assert answer.status == 404
        assert len(asked(bench)) == 2 + 1


async def send(bench: Faked, path: str, writer: FakeWriter) -> None:
    await bench.exchange.handle(FakeRequest(path, [], "GET"), writer)


async def test_many_who_want_the_same_ask_once(autojump_clock: MockClock) -> None:
    names = ("a", "b", "c")
    async with fakes(**{name: Slow(0.2, LACKING) for name in names}) as bench:
        writers = [FakeWriter() for _ in range(50)]
        async with trio.open_nursery() as nursery:
            for writer in writers:
                nursery.start_soon(send, bench, "/v1/files/file-1/content", writer)
        assert [writer.status for writer in writers] == [404] * 50
        assert len(asked(bench)) == len(names) + 50


async def test_many_who_want_the_same_share_that_it_is_unsure(autojump_clock: MockClock) -> None:
    async with fakes(a=Slow(0.2, LACKING), b=REFUSED) as bench:
        writers = [FakeWriter() for _ in range(20)]
        async with trio.open_nursery() as nursery:
            for writer in writers:
                nursery.start_soon(send, bench, "/v1/files/file-1", writer)
        assert [writer.status for writer in writers] == [503] * 20
        assert asked(bench) == ["a", "b"]


async def test_who_leaves_does_not_take_the_search_along(autojump_clock: MockClock) -> None:
    async with fakes(a=Slow(0.2, LACKING), b=Slow(0.2, made("file-1"))) as bench:
        stays = FakeWriter()
        async with trio.open_nursery() as nursery, trio.open_nursery() as leaving:
            leaving.start_soon(send, bench, "/v1/files/file-1", FakeWriter())
            await wait_all_tasks_blocked()
            nursery.start_soon(send, bench, "/v1/files/file-1", stays)
            await wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
        assert stays.status == 200
        assert bench.owners.find("files/file-1") == "b"


async def test_only_so_many_are_in_progress(autojump_clock: MockClock) -> None:
    counted = Slow(0.2, LACKING)
    async with fakes(a=counted, b=LACKING) as bench, trio.open_nursery() as nursery:
        for number in range(5 * AT_ONCE):
            path = f"/v1/responses/resp_{number}/input_items"
            nursery.start_soon(send, bench, path, FakeWriter())
        await trio.sleep(0.19)
        assert counted.most == AT_ONCE


@pytest.mark.parametrize("status", [401, 402, 403, 408, 409, 429, 500, 503, 302])
async def test_who_could_not_look_may_have_it(status: int) -> None:
    async with fakes(one=LACKING, two=error_answer(status)) as bench:
        for _ in range(2):
            answer = await bench.ask("GET", "/v1/files/file-1")
            assert answer.status == 503
            assert "`two` could not be asked" in answer.error()["message"]


@pytest.mark.parametrize("failing", [REFUSED, error_answer(403), error_answer(500)])
async def test_a_sibling_of_who_fails_is_asked(failing: Any) -> None:
    """An upstream has not answered as long as one of its instances could."""
    answers = {"same_1": failing, "same_2": made("file-1"), "other": LACKING}
    async with fakes(**answers) as bench:
        await bench.ask("GET", "/v1/files/file-1")
        assert asked(bench)[:2] == ["same_1", "same_2"]
        assert bench.owners.find("files/file-1") == "same_2"


async def test_a_sibling_of_who_does_not_have_it_is_not_asked() -> None:
    async with fakes(same_1=LACKING, same_2=LACKING, other=LACKING) as bench:
        assert (await bench.ask("GET", "/v1/files/file-1")).status == 404
        assert asked(bench)[:2] == ["same_1", "other"]


async def test_one_answer_for_an_upstream_is_enough() -> None:
    async with fakes(same_1=REFUSED, same_2=LACKING, other=LACKING) as bench:
        await bench.ask("GET", "/v1/files/file-1")
        assert asked(bench)[:3] == ["same_1", "same_2", "other"]
        assert len(asked(bench)) > 3, "nobody has it: the request itself is sent"
