"""A list of what all instances have: each upstream is asked, and what they say becomes one page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from pydantic_core import to_json

from proxy.bound.asking import LACKING, json_object
from proxy.bound.binding import nobody_answered
from proxy.bound.lists import (
    Cursor,
    Item,
    Part,
    Wanted,
    after_cursor,
    created,
    in_order,
    merged,
    wanted,
)
from proxy.errors import BadRequest
from proxy.exchange.headers import returned
from proxy.exchange.resources import is_id

if TYPE_CHECKING:
    from proxy.bound.asking import Answered, Asking
    from proxy.bound.owners import Owners
    from proxy.bound.whereabouts import Whereabouts
    from proxy.exchange.ports import Headers
    from proxy.exchange.record import RequestRecord

AT_ONCE: Final = 8
"""Upstreams that are asked at the same time for one list."""
MAX_PAGES: Final = 10
"""Pages of one upstream that are read to find what comes after the cursor."""
MAX_REMEMBERED: Final = 1000
"""Ids of one page whose owners are remembered: more would push others out."""
MAX_TOLD: Final = 20
LISTINGS_AT_ONCE: Final = 4
"""Of all requests. A long page of one upstream may take ten megabytes until it is merged."""
UNANSWERED: Final = b"x-proxy-unanswered"


Answer: TypeAlias = "tuple[int, Headers, bytes]"
"""Status, headers and body for the client."""


@dataclass(slots=True)
class _Found:
    parts: list[Part] = field(default_factory=list)
    refusals: list[Answered] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


class Listing:
    """Lists one family for one request."""

    def __init__(
        self, asking: Asking, whereabouts: Whereabouts, owners: Owners, record: RequestRecord
    ) -> None:
        self._asking = asking
        self._whereabouts = whereabouts
        self._owners = owners
        self._record = record

    async def answer(self, family: str, query: bytes, until: float) -> Answer:
        """`until`: trio time until which the cursor's owner is searched for. Between the steps that
        take time for long pages other tasks have their turn.

        Errors: `ProxyError` for a query that can't be answered, or if nobody answers.
        """
        asked = wanted(query, family)
        cursor = await self._cursor(family, asked.after, until)
        found = await self._ask_all(family, asked, cursor)
        if not found.parts:
            return self._refusal(found)
        page = merged(found.parts, limit=asked.limit, descending=asked.descending)
        self._remember(family, page["data"], found.parts)
        headers = self._headers([*found.silent, *(each.instance for each in found.refusals)])
        await trio.lowlevel.checkpoint()
        return 200, headers, to_json(page, inf_nan_mode="null")

    async def _cursor(self, family: str, after: str | None, until: float) -> Cursor | None:
        if after is None:
            return None
        key = f"{family}/{after}"
        binding = await self._whereabouts.binding([key], until)
        if binding is not None:
            lease = await self._asking.lease(binding.instances)
            answered = None if lease is None else await self._asking.get(lease, key)
            if answered is not None and answered.succeeded:
                at = created(json_object(answered.body))
                return Cursor(after, at, min(binding.instances))
            if answered is None or not answered.conclusive:
                raise nobody_answered([binding.owner])
        raise BadRequest(f"`after` is {after!r}, which is not there (any more).", param="after")

    async def _ask_all(self, family: str, asked: Wanted, cursor: Cursor | None) -> _Found:
        found = _Found()
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def ask(group: frozenset[str]) -> None:
            async with limiter:
                await self._ask(group, family, asked, cursor, found)

        async with trio.open_nursery() as nursery:
            for group in self._whereabouts.upstreams():
                nursery.start_soon(ask, group)
        await trio.lowlevel.checkpoint()
        return found

    async def _ask(
        self,
        group: frozenset[str],
        family: str,
        asked: Wanted,
        cursor: Cursor | None,
        found: _Found,
    ) -> None:
        """Reads pages until there is enough for ours."""
        owner = min(group)
        after = cursor.id if cursor is not None and cursor.owner == owner else None
        items: list[Item] = []
        for _ in range(MAX_PAGES):
            lease = await self._asking.lease(group)
            if lease is None:
                break
            self._record.attempts += 1
            answered = await self._asking.get(lease, family, asked.query(after))
            if answered.status in LACKING:  # it has nothing to list
                found.parts.append(Part(owner, [], more=False))
                return
            if answered.status is None or answered.status >= 500:
                break
            if answered.status >= 300:
                found.refusals.append(answered)
                return
            document = json_object(answered.body)
            await trio.lowlevel.checkpoint()
            listed = document.get("data")
            if not isinstance(listed, list):
                break
            given = [item for item in listed if isinstance(item, dict)]
            page = in_order(given, descending=asked.descending)
            items += after_cursor(page, owner, cursor, descending=asked.descending)
            last = given[-1].get("id") if given else None
            more = document.get("has_more") is True and last not in (None, after)
            if not more or len(items) > asked.limit:
                kept = items[: asked.limit + 1]
                found.parts.append(Part(owner, kept, more and len(kept) == len(items)))
                return
            after = str(last)
        found.silent.append(owner)

    def _refusal(self, found: _Found) -> Answer:
        """What the client did wrong, if it was that; else that nobody answers."""
        told = [each for each in found.refusals if each.status in (400, 422)]
        if not told:
            raise nobody_answered([*found.silent, *(each.instance for each in found.refusals)])
        first = told[0]
        assert first.status is not None
        headers = returned(first.headers, first.instance.encode(), self._record.id.encode())
        return first.status, headers, first.body

    def _headers(self, unanswered: list[str]) -> Headers:
        headers = [
            (b"content-type", b"application/json"),
            (b"x-request-id", self._record.id.encode()),
        ]
        if unanswered:
            headers.append((UNANSWERED, ", ".join(sorted(unanswered)[:MAX_TOLD]).encode()))
        return headers

    def _remember(self, family: str, page: list[Item], parts: list[Part]) -> None:
        owners = {id(item): part.owner for part in parts for item in part.items}
        for item in page[:MAX_REMEMBERED]:
            identity = item.get("id")
            if isinstance(identity, str) and is_id(identity):
                self._owners.remember(f"{family}/{identity}", owners[id(item)])
