"""The side of the exchange that knows where things are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from proxy.bound.asking import Asking
from proxy.bound.binding import too_many_lists
from proxy.bound.carrying import Carrying
from proxy.bound.errand import read_errand
from proxy.bound.ids import SEALED, may_name, named_by
from proxy.bound.listing import LISTINGS_AT_ONCE, Listing
from proxy.bound.notes import MadeNotes, ResponseNotes
from proxy.bound.search import search_until
from proxy.bound.whereabouts import Whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.models import InstanceConfig
    from proxy.bound.binding import Binding
    from proxy.bound.errand import Errand
    from proxy.bound.listing import Answer
    from proxy.bound.owners import Owners
    from proxy.exchange.attempts import Means
    from proxy.exchange.call import Call
    from proxy.exchange.patience import Patience
    from proxy.exchange.ports import RequestReader, ResponseWriter
    from proxy.exchange.record import RequestRecord
    from proxy.exchange.resources import Key, Place
    from proxy.exchange.terms import Terms


class Bound:
    """Binds requests to the instances that made what they name, and remembers what answers make.

    `configs`: every instance's configuration, by name; must not block.
    """

    def __init__(
        self,
        means: Means,
        owners: Owners,
        configs: Callable[[], Mapping[str, InstanceConfig]],
    ) -> None:
        self._means = means
        self._owners = owners
        self._asking = Asking(means)
        self._lists = trio.CapacityLimiter(LISTINGS_AT_ONCE)
        self._whereabouts = Whereabouts(owners, self._asking, configs)

    async def serve(
        self,
        request: RequestReader,
        writer: ResponseWriter,
        record: RequestRecord,
        place: Place,
        terms: Terms,
    ) -> None:
        """Answers a request about something that is kept. Errors: `ProxyError`."""
        resource = place.resource
        record.operation = resource.path
        if request.method == "GET" and resource.listed and len(self._whereabouts.upstreams()) > 1:
            until = search_until(terms.patience, record.started_at)
            status, headers, body = await self._listed(resource.family, request, record, until)
            record.status = status
            record.first_byte_s = trio.current_time() - record.started_at
            await writer.respond(status, headers, body)
            return
        errand = await read_errand(request, place, terms.forwarded)
        try:
            record.model = errand.model
            binding = await self._whereabouts.binding(
                errand.names, search_until(terms.patience, record.started_at)
            )
            if resource.makes and errand.method != "DELETE":
                writer = MadeNotes(writer, record, self._owners, resource.makes)
            carrying = Carrying(self._means, errand, binding, terms.patience, writer, record)
            done = await carrying.run()
            if place.key is not None:
                self._learn(errand, place.key, record, done=done, bound=binding is not None)
        finally:
            errand.close()

    async def _listed(
        self, family: str, request: RequestReader, record: RequestRecord, until: float
    ) -> Answer:
        """In its turn. Errors: `ProxyError`, also if that has not come by `until` (trio time)."""
        with trio.move_on_at(until) as waiting:
            await self._lists.acquire()
        if waiting.cancelled_caught:
            raise too_many_lists()
        try:
            listing = Listing(self._asking, self._whereabouts, self._owners, record)
            return await listing.answer(family, request.query, until)
        finally:
            self._lists.release()

    def _learn(
        self, errand: Errand, key: Key, record: RequestRecord, *, done: bool, bound: bool
    ) -> None:
        """What the end of an errand says of `key`, which its path names."""
        gone = errand.method == "DELETE" if done else record.status == 404
        if gone and errand.place.resource.names_one:
            self._owners.forget(key)
        elif done and not bound:
            self._owners.remember(key, record.instance)

    def known(self, document: Mapping[str, Any]) -> Binding | None:
        """To whom a JSON request is bound, as far as that is known without asking anybody.
        Errors: `ProxyError` as `bind`."""
        return self._whereabouts.known(named_by(document))

    async def bind(
        self, call: Call, patience: Patience, writer: ResponseWriter, record: RequestRecord
    ) -> ResponseWriter:
        """`call`, a request for a response, goes to the owner of what it names. Returns the writer
        that takes note of what the answer makes. Errors: `ProxyError` if there is no such place.
        """
        assert isinstance(call.body, bytes)
        named = named_by(call.document) if may_name(call.body) else []
        if named:
            until = search_until(patience, record.started_at)
            call.binding = await self._whereabouts.binding(named, until)
            call.unopened = tuple(
                key
                for key in named
                if key.startswith(f"{SEALED}/") and self._owners.find(key) is None
            )
        return ResponseNotes(
            writer,
            record,
            self._owners,
            stored=call.document.get("store") is not False,
            opened=call.unopened,
        )
