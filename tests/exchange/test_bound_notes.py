"""What is remembered of an answer is what its own fields say, whatever else it holds and however
it arrives."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import trio
from fakes import FakeWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.bound.ids import sealed_key
from proxy.bound.notes import MadeNotes, Notes, ResponseNotes
from proxy.bound.owners import Owners
from proxy.exchange.record import RequestRecord
from proxy.exchange.resources import is_id

IDS = st.sampled_from(["resp_1", "resp_2", "file-3", "../x", "", 'a"b', "é"]) | st.integers()
NAMES = st.sampled_from(
    ["id", "response", "output", "encrypted_content", "metadata", "type", "file", "output_file_id"]
)
VALUES = st.recursive(
    IDS | st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=5)
JSON_HEAD = [(b"content-type", b"application/json")]
SSE_HEAD = [(b"content-type", b"text/event-stream")]


def expected(response: Any) -> set[str]:
    keys = set()
    if isinstance(response.get("id"), str) and is_id(response["id"]):
        keys.add(f"responses/{response['id']}")
    output = response.get("output")
    for item in output if isinstance(output, list) else []:
        content = item.get("encrypted_content") if isinstance(item, dict) else None
        if isinstance(content, str) and content:
            keys.add(sealed_key(content))
    return keys


def relayed(make: Any, status: int, head: Any, pieces: list[bytes]) -> tuple[set[str], bytes]:
    """What is remembered, and what the client got."""
    owners, writer = Owners(100), FakeWriter()
    record = RequestRecord("x", 0.0, instance="one")

    async def relay() -> None:
        notes: Notes = make(writer, record, owners)
        if head is None:
            await notes.respond(status, JSON_HEAD, b"".join(pieces))
        else:
            await notes.start(status, head)
            for piece in pieces:
                await notes.write(piece)
            await notes.finish()

    trio.run(relay)
    assert {owner for _, owner in owners.entries()} <= {"one"}
    return {key for key, _ in owners.entries()}, writer.body


def of_response(writer: Any, record: Any, owners: Any) -> Notes:
    return ResponseNotes(writer, record, owners, stored=True, opened=())


def cut(body: bytes, at: list[int]) -> list[bytes]:
    ends = [0, *sorted(min(each, len(body)) for each in at), len(body)]
    return [body[start:end] for start, end in pairwise(ends) if start < end]


@settings(deadline=None)
@given(DOCUMENTS, st.booleans(), st.none() | st.lists(st.integers(0, 300), max_size=4))
def test_of_a_whole_answer(document: dict[str, Any], spaced: bool, at: list[int] | None) -> None:
    body = json.dumps(document, indent=1 if spaced else None).encode()
    head = None if at is None else JSON_HEAD
    found, passed = relayed(of_response, 200, head, cut(body, at or []))
    assert passed == body
    assert found == expected(document)
    assert relayed(of_response, 400, head, cut(body, at or [])) == (set(), body)


@settings(deadline=None)
@given(DOCUMENTS, st.lists(DOCUMENTS, max_size=4), st.booleans())
def test_of_a_stream(response: dict[str, Any], others: list[dict[str, Any]], compact: bool) -> None:
    separators = (",", ":") if compact else None
    for other in others:
        other.pop("response", None)
        if other.get("type") == "response.output_item.done":
            other["type"] = "x"
    item = {"encrypted_content": "sealed"}
    told = [
        {"type": "response.created", "sequence_number": 0, "response": response},
        *others,
        {"type": "response.output_item.done", "item": item},
    ]
    pieces = [
        f"event: {each.get('type')}\ndata: {json.dumps(each, separators=separators)}\n\n".encode()
        for each in told
    ]
    found, passed = relayed(of_response, 200, SSE_HEAD, pieces)
    assert passed == b"".join(pieces)
    own = {key for key in expected(response) if key.startswith("responses/")}
    assert found == own | {sealed_key("sealed")}


@settings(deadline=None)
@given(DOCUMENTS)
def test_of_what_else_is_made(document: dict[str, Any]) -> None:
    def of_batch(writer: Any, record: Any, owners: Any) -> Notes:
        makes = (("id", "batches"), ("output_file_id", "files"))
        return MadeNotes(writer, record, owners, makes)

    found, _ = relayed(of_batch, 200, None, [json.dumps(document).encode()])
    wanted = {
        f"{family}/{document[field]}"
        for field, family in (("id", "batches"), ("output_file_id", "files"))
        if isinstance(document.get(field), str) and is_id(document[field])
    }
    assert found == wanted
