"""Which ids a request names, which ones an answer makes, and what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bound.ids import (
    MAX_NAMED,
    MAX_SEALED,
    MAX_WALKED,
    is_key,
    made_by,
    may_name,
    named_by,
    sealed_in,
    sealed_key,
    told,
)
from proxy.exchange.resources import RESOURCES, is_id, locate

WORDS = st.text(max_size=8)
KEYS = WORDS | st.sampled_from(["file_id", "file_ids", "previous_response_id", "input", "id"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS | st.sampled_from(["file-1", "resp_1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"previous_response_id": "resp_1"}, ["responses/resp_1"]),
        ({"previous_response_id": None, "input": "previous_response_id"}, []),
        ({"input_file_id": "file-1", "endpoint": "/v1/responses"}, ["files/file-1"]),
        ({"file_ids": ["file-1", "file-2", "file-1"]}, ["files/file-1", "files/file-2"]),
        ({"assistant_id": "asst_1", "model": "m"}, ["assistants/asst_1"]),
        ({"conversation": "conv_1"}, ["conversations/conv_1"]),
        ({"conversation": {"id": "conv_1"}}, ["conversations/conv_1"]),
        (
            {
                "input": [
                    {"content": [{"type": "input_file", "file_id": "file-9"}]},
                    {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAAA"},
                ],
                "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
            },
            ["files/file-9", "vector_stores/vs_1", sealed_key("gAAAA")],
        ),
        ({"tool_resources": {"code_interpreter": {"file_ids": ["f"]}}}, ["files/f"]),
        ({"metadata": {"file_id": "file-1"}, "file_id": 7, "file_ids": [1, None]}, []),
        ({"file_id": "../../admin", "assistant_id": "a/b"}, []),
        # A schema that describes a field of that name names nothing
        ({"tools": [{"parameters": {"properties": {"file_id": {"type": "string"}}}}]}, []),
    ],
)
def test_what_a_request_names(document: dict[str, Any], named: list[str]) -> None:
    assert named_by(document) == named
    assert may_name(json.dumps(document).encode()) or not named


@pytest.mark.parametrize("lists", [1, 7, 10 * MAX_NAMED])
def test_only_so_many_names_of_one_request_are_looked_up(lists: int) -> None:
    """However they are spread over the request."""
    many = [f"file-{n}" for n in range(10 * MAX_NAMED)]
    request = {
        "tools": [{"file_ids": many[n::lists]} for n in range(lists)],
        "input": [{"encrypted_content": f"content {n}"} for n in range(MAX_SEALED + 5)],
    }
    named = named_by(request)
    assert len(named) == MAX_NAMED + MAX_SEALED
    assert named[0] == "files/file-0"
    assert named[MAX_NAMED - 1].startswith("files/")
    assert named[-1] == sealed_key(f"content {MAX_SEALED + 4}")


def test_only_so_much_of_one_request_is_looked_into() -> None:
    many: list[Any] = [{}] * MAX_WALKED
    one = {"file_id": "file-1"}
    assert named_by({"input": [one, *many[5:]]}) == ["files/file-1"]
    assert named_by({"input": [*many, one]}) == []
    # Of an object, too, and of many small things
    assert named_by({**dict.fromkeys(map(str, range(MAX_WALKED))), **one}) == []
    assert named_by({"input": [[""] * 10] * (MAX_WALKED // 10), "tools": [one]}) == []
    # What is no id is not looked at without an end either
    strange = {"file_ids": ["no id"] * MAX_NAMED + ["file-1"]}
    assert named_by(strange) == []


@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_nothing_is_named_where_nothing_hints_at_it(document: dict[str, Any]) -> None:
    named = named_by(document)
    assert all(map(is_key, named))
    if not may_name(json.dumps(document, separators=(",", ":")).encode()):
        assert named == []


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("resp_67ccd3a9da748190baa7f1570fe91ac604becb25c45c1d41", True),
        ("file-abc", True),
        ("batch_6f1f0c4e-0b7d-4a3b-9c43-7e1d0c2f9a11", True),
        ("cmVzcF8x.aa==", True),
        ("a" * 200, True),
        ("a" * 201, False),
        ("", False),
        (".", False),
        ("..", False),
        ("a/b", False),
        ("a%2fb", False),
        ("a\nb", False),
        ("a\n", False),
        ("a b", False),
        ('a"b', False),
        ("é", False),
        ("-a", False),
    ],
)
def test_what_could_be_an_id(text: str, *, is_one: bool) -> None:
    assert is_id(text) is is_one
    assert is_key(f"files/{text}") is is_one


def test_an_answer_makes_what_its_own_fields_say_and_nothing_that_it_repeats() -> None:
    batch = {
        "id": "batch_1",
        "output_file_id": "file-out",
        "error_file_id": None,
        "metadata": {"id": "batch_2", "output_file_id": "file-theirs"},
    }
    makes = (("id", "batches"), ("output_file_id", "files"), ("error_file_id", "files"))
    assert list(made_by(batch, makes)) == ["batches/batch_1", "files/file-out"]
    upload = {"id": "upload_1", "file": {"id": "file-2"}}
    assert list(made_by(upload, (("file.id", "files"),))) == ["files/file-2"]
    assert list(made_by({"id": "../x", "file": "no"}, (("id", "f"), ("file.id", "f")))) == []


def test_a_response_brings_encrypted_items() -> None:
    output = [{"type": "reasoning", "encrypted_content": "x"}, {"encrypted_content": None}, 7]
    assert list(sealed_in({"output": output, "metadata": {"encrypted_content": "y"}})) == [
        sealed_key("x")
    ]
    assert list(sealed_in({"output": None})) == []
    assert told(sealed_key("x")) == "the encrypted reasoning"
    assert told("files/file-1") == "`file-1`"


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.path)
def test_each_address_is_found_with_its_ids(resource) -> None:
    path = "/".join("id-1" if step[0] == "{" else step for step in resource.path.split("/"))
    place = locate(path)
    assert place is not None
    assert place.resource is resource
    assert place.path == path
    named = "{" in resource.path
    assert place.key == (f"{resource.family}/id-1" if named else None)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "files/",
        "files//content",
        "files/../batches",
        "files/./content",
        "files/a/b",
        "files/a/content/x",
        "files/a b",
        "files/a%2fcontent",
        "responses",
        "chat/completions/x",
        "threads/t/runs/r/steps/../x",
        "/files",
        "Files",
    ],
)
def test_what_is_no_address(path: str) -> None:
    assert locate(path) is None


@given(st.text("/.%afilesbtch{}_-", max_size=40) | st.text())
def test_whatever_is_found_stays_below_its_family(path: str) -> None:
    place = locate(path)
    if place is not None:
        steps = place.path.split("/")
        assert place.path == path
        assert all(is_id(step) for step in steps[1:])
        assert steps[0] == place.resource.family
