"""Changing a few fields of a body and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from proxy.errors import BadRequest
from proxy.exchange.rewrite import with_fields

ASK = {"include_usage": True}


def changed(body: bytes, fields: dict[str, Any]) -> bytes:
    return with_fields(body, from_json(body), fields)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"gpt-4","n":1.0}', b'{"model":"dep","n":1.0}'),
        (b' {\n "n": 1e2,\t"model" :\r\n "gpt-4" } ', b' {\n "n": 1e2,\t"model" :\r\n "dep" } '),
        (b'{"model":"a\\"b\\\\","x":"\\u00e9\xc3\xa9"}', b'{"model":"dep","x":"\\u00e9\xc3\xa9"}'),
        # Text that looks like the field, in strings and in keys
        (
            b'{"messages":[{"content":"\\"model\\":\\"no\\""}],"model":"m"}',
            b'{"messages":[{"content":"\\"model\\":\\"no\\""}],"model":"dep"}',
        ),
        (b'{"a\\"model":"no","model":"m"}', b'{"a\\"model":"no","model":"dep"}'),
        (b'{"submodel":"no","model":"m"}', b'{"submodel":"no","model":"dep"}'),
        (b'{"x":"model","model":"m"}', b'{"x":"model","model":"dep"}'),
        (b'{"x":"c:\\\\","model":"m"}', b'{"x":"c:\\\\","model":"dep"}'),
        (b'{"x":{"model":7},"model":"m"}', b'{"x":{"model":7},"model":"dep"}'),
        (b'{"model":""}', b'{"model":"dep"}'),
        # Absent: put in front
        (b'{"n":1}', b'{"model":"dep","n":1}'),
        (b' { "n":1}', b' {"model":"dep", "n":1}'),
    ],
)
def test_the_model_is_replaced_in_place(body: bytes, expected: bytes) -> None:
    assert changed(body, {"model": "dep"}) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","metadata":{"model":"mine"}}',
        b'{"metadata":{"model":"m"},"model":"m"}',
        b'{"metadata":{"model":"m"},"mod\\u0065l":"m"}',
        b'{"mod\\u0065l":"m"}',
        b'{"model":"first","model":"last"}',
        b'{"model":7,"x":{"model":"mine"}}',
        b'{"model":null,"x":"\\u2028\xe2\x80\xa8"}',
        b"{}",
    ],
)
def test_where_the_text_is_not_plain_the_document_is_written_anew(body: bytes) -> None:
    made = changed(body, {"model": "dep"})
    assert json.loads(made) == {**json.loads(body), "model": "dep"}
    assert made.count(b'"dep"') == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
        (b'\n{"a" : 1.50 }', b'\n{"stream_options":{"include_usage":true},"a" : 1.50 }'),
    ],
)
def test_usage_is_asked_for_in_front_of_all_else(body: bytes, expected: bytes) -> None:
    assert changed(body, {"stream_options": ASK}) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","stream_options":{"include_usage":false}}',
        b'{"stream_options":null,"model":"m"}',
        b'{"stream_opti\\u006fns":null,"model":"m"}',
        b'{"model":"m","x":{"model":"other"}}',
        b'{"model":"m"}',
        b"{}",
    ],
)
def test_both_fields_are_set_whichever_of_them_can_be_put_into_the_text(body: bytes) -> None:
    fields = {"model": "dep", "stream_options": ASK}
    assert json.loads(changed(body, fields)) == {**json.loads(body), **fields}
    assert json.loads(changed(body, dict(reversed(fields.items())))) == {
        **json.loads(body),
        **fields,
    }


def test_a_name_of_any_characters_stays_one_string() -> None:
    name = 'a"b\\c\n\x7fé\u2028'
    assert json.loads(changed(b'{"model":"m"}', {"model": name}))["model"] == name


def test_a_number_that_no_float_can_hold_is_refused_rather_than_changed() -> None:
    body = b'{"model":1,"temperature":1e999}'
    with pytest.raises(BadRequest, match="out of range"):
        changed(body, {"model": "dep"})
    kept = b'{"model":"m","temperature":1e999}'
    assert changed(kept, {"model": "dep"}) == kept.replace(b'"m"', b'"dep"')


def test_a_long_text_costs_no_memory_to_pass_over() -> None:
    body = b'{"model":"' + b"\\n" * 2_000_000 + b'","n":1}'
    assert changed(body, {"model": "dep"}) == b'{"model":"dep","n":1}'


NAMES = st.sampled_from(["model", "stream_options", "x", 'a"model', "mod", "model "])
TEXTS = st.sampled_from(['"model":"x"', "model", '","model":"y', "\\", 'q"', "é\u2028"]) | st.text(
    max_size=6
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(NAMES, JSON, max_size=6)
FIELDS = st.fixed_dictionaries({}, optional={"model": TEXTS, "stream_options": st.just(ASK)})


@settings(deadline=None)
@given(DOCUMENTS, FIELDS, st.booleans(), st.sampled_from([None, 1]))
def test_the_value_is_that_of_the_old_text_with_the_new_fields(
    document: dict[str, Any], fields: dict[str, Any], ascii_: bool, indent: int | None
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_, indent=indent).encode()
    made = changed(body, fields)
    assert json.loads(made) == {**document, **fields}
    if not fields:
        assert made == body


@settings(deadline=None)
@given(DOCUMENTS, TEXTS, TEXTS)
def test_a_plain_top_level_model_is_the_only_thing_that_changes(
    document: dict[str, Any], old: str, new: str
) -> None:
    rest = json.dumps({key: value for key, value in document.items() if key == "x"})
    if '"model":' in rest.replace(" ", ""):
        return
    body = b'{"model": %b, "rest": %b}'
    before = body % (json.dumps(old).encode(), rest.encode())
    after = body % (json.dumps(new, ensure_ascii=False).encode(), rest.encode())
    if b"\\u006" in before:
        return
    assert changed(before, {"model": new}) == after
