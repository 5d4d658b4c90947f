"""Ids of what is kept upstream: which ones a request names, which ones an answer makes. Pure.

A key is `family/id`, such as `files/file-1`: also the path at which the thing can be asked for.
Encrypted reasoning has no address; its key is `sealed/` and a digest of what was encrypted, for a
client may leave the item's id out but never its content.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from proxy.exchange.resources import ID, Key, is_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SEALED: Final = "sealed"
MAX_NAMED: Final = 512
"""Ids of one request that are looked up; a vector store takes 500 files at once."""
MAX_WALKED: Final = 300_000
"""Values in one request's objects and lists that are looked at: a tenth of a second. The longest
input that a model takes has some ten thousand."""
MAX_SEALED: Final = 32
"""Encrypted items of one request that are looked up, the newest ones: one of them is enough to
tell whose they are."""

_KEY: Final = re.compile(rf"[a-z_]{{1,32}}/{ID.pattern}")

_FAMILY_OF: Final = {
    "previous_response_id": "responses",
    "conversation": "conversations",
    "input_file_id": "files",
    "file_id": "files",
    "file_ids": "files",
    "vector_store_id": "vector_stores",
    "vector_store_ids": "vector_stores",
    "assistant_id": "assistants",
}
"""Fields of requests, at any depth → the family of the ids in them."""
_UNREAD: Final = frozenset({"metadata", "attributes"})
"""What these hold is the client's own."""
_LOOKED_INTO: Final = (dict, list)
_HINTS: Final = (b'_id"', b'_ids"', b'"conversation"', b'"encrypted_content"')


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def may_name(body: bytes) -> bool:
    """Whether a JSON body can name an id at all: four searches, for the usual one that doesn't."""
    return any(hint in body for hint in _HINTS)


def named_by(document: Mapping[str, Any]) -> list[Key]:
    """What a JSON request names, each once, the encrypted items last: at most `MAX_NAMED` and
    `MAX_SEALED`. Cost: bounded by these and `MAX_WALKED`."""
    named: dict[Key, None] = {}
    sealed: dict[str, None] = {}
    for field, value in _fields(document):
        if field == "encrypted_content":
            if isinstance(value, str) and value:
                sealed[value] = None
        elif len(named) < MAX_NAMED:
            keys = _keys(_FAMILY_OF[field], value, MAX_NAMED - len(named))
            named.update(dict.fromkeys(keys))
    return [*named, *map(sealed_key, list(sealed)[-MAX_SEALED:])]


def _fields(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields that may name something, in the order of the text."""
    stack: list[Any] = [document]
    left = MAX_WALKED
    while stack and left > 0:
        value = stack.pop()
        if isinstance(value, dict):
            fields = list(islice(value.items(), left))
            for field, inner in fields:
                if field in _FAMILY_OF or field == "encrypted_content":
                    yield field, inner
            inner_values = [inner for field, inner in fields if field not in _UNREAD]
        else:
            inner_values = value[:left]
        left -= len(inner_values)
        stack.extend(v for v in reversed(inner_values) if isinstance(v, _LOOKED_INTO))


def _keys(family: str, value: Any, most: int) -> Iterator[Key]:
    """The keys among the first `most` that it names."""
    if isinstance(value, dict):  # `conversation` may be an object with an id
        value = value.get("id")
    for each in value[:most] if isinstance(value, list) else [value]:
        if isinstance(each, str) and is_id(each):
            yield f"{family}/{each}"


def sealed_key(content: str) -> Key:
    """128 bits of a digest; a collision would only ask the wrong instance."""
    digest = blake2b(content.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{SEALED}/{digest}"


def made_by(document: Mapping[str, Any], makes: Iterable[tuple[str, str]]) -> Iterator[Key]:
    """What an answer makes. `makes`: its fields that hold ids, `a.b` for one inside another, with
    the families. No other field is looked at: an answer repeats much that the client wrote."""
    for field, family in makes:
        value: Any = document
        for step in field.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, str) and is_id(value):
            yield f"{family}/{value}"


def sealed_in(response: Mapping[str, Any]) -> Iterator[Key]:
    """The encrypted items that a response brings."""
    output = response.get("output")
    for item in output if isinstance(output, list) else ():
        content = item.get("encrypted_content") if isinstance(item, dict) else None
        if isinstance(content, str) and content:
            yield sealed_key(content)


def told(key: Key) -> str:
    """How a key is called in a message to the client."""
    family, _, identity = key.partition("/")
    return "the encrypted reasoning" if family == SEALED else f"`{identity}`"
