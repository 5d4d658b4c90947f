"""The side of the exchange that knows where things are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.bound.asking import Asking
from proxy.bound.ids import SEALED, may_name, named_by
from proxy.bound.notes import ResponseNotes
from proxy.bound.whereabouts import Whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.models import InstanceConfig
    from proxy.bound.owners import Owners
    from proxy.exchange.attempts import Means
    from proxy.exchange.call import Call
    from proxy.exchange.ports import ResponseWriter
    from proxy.exchange.record import RequestRecord


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
        self._configs = configs
        self._asking = Asking(means)
        self._whereabouts = Whereabouts(owners, self._asking, configs)

    async def bind(
        self, call: Call, writer: ResponseWriter, record: RequestRecord
    ) -> ResponseWriter:
        """`call`, a request for a response, goes to the owner of what it names. Returns the writer
        that takes note of what the answer makes. Errors: `ProxyError` if there is no such place.
        """
        assert isinstance(call.body, bytes)
        named = named_by(call.document) if may_name(call.body) else []
        if named:
            call.binding = await self._whereabouts.binding(named)
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
