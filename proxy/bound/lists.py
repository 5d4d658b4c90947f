"""One list made of several: what is asked for, what of it belongs on the page, and its shape. Pure.

The order is by `created_at`, as upstreams have it; of two things of one second that of the
instance whose name comes first is first, and an instance's own order holds between its things.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlencode

from proxy.errors import BadRequest
from proxy.exchange.resources import is_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Item: TypeAlias = dict[str, Any]

MAX_LIMIT: Final = {"files": 10_000}
DEFAULT_LIMIT: Final = {"files": 10_000}
OTHER_MAX_LIMIT: Final = 100
OTHER_DEFAULT_LIMIT: Final = 20
"""The OpenAI API reference: files come all at once, everything else in pages."""
MAX_QUERY_FIELDS: Final = 20
MAX_TIME: Final = 2**53
"""Larger numbers are no times, and floats no longer tell each from the next."""
_NUMBER: Final = (int, float)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`after`: the id of the last thing that the client has. `others`: the filters of the query.
    `limited`: the client itself has named the limit."""

    limit: int
    limited: bool
    descending: bool
    after: str | None
    others: tuple[tuple[str, str], ...]

    def query(self, after: str | None) -> bytes:
        """What an instance is asked: what comes after its own `after`."""
        fields = [*self.others, ("order", "desc" if self.descending else "asc")]
        if self.limited:
            fields.append(("limit", str(self.limit)))
        if after is not None:
            fields.append(("after", after))
        return urlencode(fields).encode()


def wanted(query: bytes, family: str) -> Wanted:
    """Errors: `BadRequest`, naming the parameter."""
    try:
        given = parse_qsl(query.decode("latin-1"), max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise BadRequest("The query has too many parameters.") from None
    fields = dict(given)
    most = MAX_LIMIT.get(family, OTHER_MAX_LIMIT)
    limit = fields.pop("limit", "")
    order, after = fields.pop("order", "desc"), fields.pop("after", None)
    fields.pop("api-version", None)
    if "before" in fields:
        raise BadRequest(
            "`before` can't be used where several instances are listed as one; use `after` and "
            "`order`.",
            param="before",
        )
    if limit and not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= most):
        raise BadRequest(f"`limit` must be a whole number from 1 to {most}.", param="limit")
    if order not in ("asc", "desc"):
        raise BadRequest("`order` must be `asc` or `desc`.", param="order")
    if after is not None and not is_id(after):
        raise BadRequest("`after` must be the id of something listed.", param="after")
    return Wanted(
        int(limit) if limit else DEFAULT_LIMIT.get(family, OTHER_DEFAULT_LIMIT),
        bool(limit) or family not in DEFAULT_LIMIT,
        order == "desc",
        after,
        tuple(fields.items()),
    )


def in_order(items: Iterable[Item], *, descending: bool) -> list[Item]:
    """As they should have come: not every upstream knows `order`. Those of one second stay as
    they are."""
    sign = -1 if descending else 1
    return sorted(items, key=lambda item: sign * created(item))


class Cursor(NamedTuple):
    """The thing with the id `after`: when it was made, and whose it is."""

    id: str
    created: float
    owner: str


class Part(NamedTuple):
    """What one instance has that comes after the cursor, in its own order. `more`: and more."""

    owner: str
    items: Sequence[Item]
    more: bool


def after_cursor(
    items: Sequence[Item], owner: str, cursor: Cursor | None, *, descending: bool
) -> list[Item]:
    """Those of `owner`'s items that come after the cursor.

    Of the cursor's own owner all do, because it was asked so; unless it does not know `after` and
    lists the thing itself.
    """
    if cursor is None:
        return list(items)
    if owner == cursor.owner:
        ids = [item.get("id") for item in items]
        return list(items[ids.index(cursor.id) + 1 :] if cursor.id in ids else items)
    sign = -1 if descending else 1
    last = (sign * cursor.created, cursor.owner)
    return [item for item in items if (sign * created(item), owner) > last]


def merged(parts: Sequence[Part], *, limit: int, descending: bool) -> dict[str, Any]:
    """One page in the shape of the OpenAI API. The items are after the cursor already."""
    sign = -1 if descending else 1
    entries = [
        (sign * created(item), part.owner, number, item)
        for part in parts
        for number, item in enumerate(part.items)
    ]
    entries.sort(key=itemgetter(0, 1, 2))
    page = [entry[3] for entry in entries[:limit]]
    ids = [item.get("id") for item in page] or [None]
    return {
        "object": "list",
        "data": page,
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": len(entries) > limit or any(part.more for part in parts),
    }


def created(item: Item) -> float:
    """Epoch seconds; 0 if it does not say, or what can be no time."""
    value = item.get("created_at")
    return float(value) if isinstance(value, _NUMBER) and 0 <= value < MAX_TIME else 0.0
