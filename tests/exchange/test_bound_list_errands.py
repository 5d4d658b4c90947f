"""One list made of what all upstreams have, page by page."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import trio
from bound_bench import Shore, Slow, by, document, fakes, keeper, shore
from fakes import REFUSED, FakeAnswer, FakeRequest, FakeWriter, error_answer
from kept_things import ONE, TWO, prefer, upload

from proxy.bound import listing as listing_module
from proxy.bound.listing import LISTINGS_AT_ONCE
from proxy.bound.owners import Owners
from proxy.exchange.ports import UpstreamRequest


def ids(listed: FakeWriter) -> list[str]:
    return [item["id"] for item in document(listed)["data"]]


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
    listing = Slow(4, FakeAnswer(pieces=[b'{"data": []}']))
    async with fakes(one=listing, two=error_answer(404)) as bench:
        writers = [FakeWriter() for _ in range(3 * LISTINGS_AT_ONCE)]
        async with trio.open_nursery() as nursery:
            for writer in writers:
                request = FakeRequest("/v1/files", [], "GET", headers=[(b"x-max-wait-ms", b"7000")])
                nursery.start_soon(bench.exchange.handle, request, writer)
        assert listing.most == LISTINGS_AT_ONCE
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
