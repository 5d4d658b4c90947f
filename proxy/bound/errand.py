"""A request about something that is kept upstream, read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actors.messages import NO_MODEL, Demand
from proxy.bound.ids import named_by
from proxy.exchange.call import MAX_MODEL_LENGTH, content_length, expect_plain, read_json
from proxy.exchange.ports import UpstreamRequest
from proxy.exchange.rewrite import with_fields
from proxy.exchange.upload import Upload
from proxy.upstream.address import endpoint

if TYPE_CHECKING:
    from actors.lease import Lease
    from proxy.exchange.ports import Headers, RequestReader
    from proxy.exchange.resources import Key, Place
    from proxy.upstream.address import AddressBook

SLOWEST_BYTES_PER_S: Final = 16 * 1024
"""What a client must send at the least; as long may its upload take to reach the upstream."""


@dataclass(slots=True)
class Errand:
    """`headers`: those that go upstream. `document`: the parsed JSON body; empty if it is none.
    `model`: named by the body, `NO_MODEL` if it names none."""

    place: Place
    method: str
    query: bytes
    headers: Headers
    body: bytes | Upload
    document: dict[str, Any]
    model: str

    @property
    def demand(self) -> Demand:
        return Demand(self.model, 0, 0, 0, 0)

    @property
    def names(self) -> list[Key]:
        """What its path names, then what its body names."""
        key = self.place.key
        return [*([] if key is None else [key]), *named_by(self.document)]

    def request(self, lease: Lease, addresses: AddressBook) -> UpstreamRequest:
        """As the lease's instance wants it. Errors: as `proxy.exchange.attempt.upstream_request`.

        A file may take as long to come as it needs, while some of it comes.
        """
        config, body = lease.config, self.body
        timeout_s = config.timeout_seconds
        if isinstance(body, Upload):
            body.rewind()
            timeout_s += (body.length or 0) / SLOWEST_BYTES_PER_S
        elif self.model and self.model != lease.deployment:
            body = with_fields(body, self.document, {"model": lease.deployment})
        return UpstreamRequest(
            config=config,
            method=self.method,
            # Not from the book of addresses, where ids would push out what is used all the time.
            url=endpoint(config, self.place.path, None, self.query),
            headers=[*self.headers, addresses.auth_header(config)],
            body=body,
            timeout_s=timeout_s,
            silence_s=config.timeout_seconds,
            whole_s=None if self.place.path.endswith("/content") else timeout_s,
        )

    def close(self) -> None:
        if isinstance(self.body, Upload):
            self.body.close()


async def read_errand(request: RequestReader, place: Place, headers: Headers) -> Errand:
    """`headers`: those that go upstream. An upload is not read yet.

    Errors: `BadRequest`, `BodyTooLarge`, `RequestTimeout`.
    """
    body: bytes | Upload = b""
    document: dict[str, Any] = {}
    if request.method == "POST":
        expect_plain(request)
        if place.resource.form:
            body = Upload(request, content_length(request.headers))
        else:
            body, document = await read_json(request)
    model = document.get("model")
    if not isinstance(model, str) or len(model) > MAX_MODEL_LENGTH:
        model = NO_MODEL
    return Errand(place, request.method, request.query, headers, body, document, model)
