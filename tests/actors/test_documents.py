"""JSON and YAML read strictly."""

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned_migration import plan

from actors.documents import MAX_BYTES, MAX_YAML_BYTES
from actors.errors import BrokenFile
from actors.migration import read_document


def test_yaml_dates_stay_text_and_words_are_booleans():
    document = b"""
instances:
  - name: east
    api_key: ${HOME}
    api_base: https://east.example
    api_version: 2024-05-15
    enabled: no
    supported_models: [gpt-4]
    timeout_seconds: 45
"""
    made = plan(read_document(document, "base.yaml"))
    config = made.configs["east"]
    assert (config.api_version, config.enabled) == ("2024-05-15", False)
    assert config.api_key == "${HOME}"


def test_yaml_keys_are_taken_as_they_are_written():
    assert read_document(b"on: {1: a, 2024-01-01: b, ~: c}", "x.yml") == {
        "on": {"1": "a", "2024-01-01": "b", "~": "c"}
    }


@pytest.mark.parametrize(
    ("content", "name", "where", "reason"),
    [
        (b"", "d.json", "top level", "empty"),
        (b" \n", "d.yaml", "top level", "empty"),
        (b'{"a": \xff}', "d.json", "line 1", "UTF-8"),
        (b'{"a": 1, "a": 2}', "d.json", "a", "more than once"),
        (b'{"a": {"b": NaN}}', "d.json", "a.b", "finite"),
        (b'{"a": "b"', "d.json", "line 1, column 10", "delimiter"),
        (b"[" * 100_000, "d.json", "top level", "deeply"),
        (b"[" * 2_000, "d.yaml", "top level", "deeply"),
        (b"1" * 5000, "d.yaml", "top level", "number"),
        (b"[" + b"1" * 5000 + b"]", "d.json", "top level", "number"),
        (b"a: 1\nb: 2\na: 3\n", "d.json", "line 3, column 1", "more than once"),
        (b"a: &x [1]\nb: *x\n", "d.yaml", "line 2, column 4", "aliases"),
        (b"a: !!python/object/apply:os.getcwd []", "d.yaml", "line 1", "constructor"),
        (b"a: !!binary aGVsbG8=", "d.yaml", "line 1", "constructor"),
        (b"[1]: 2", "d.yaml", "line 1", "text"),
        (b"a: 1\n--- \nb: 2\n", "d.yaml", "line 2", "another document"),
        (b"a: \x07", "d.yaml", "top level", "not valid YAML"),
        (b" " * (MAX_BYTES + 1), "d.json", "top level", "larger"),
        (b"a: 1\n" + b"#" * MAX_YAML_BYTES, "d.json", "top level", "larger"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_place(content, name, where, reason):
    with pytest.raises(BrokenFile, match=reason) as caught:
        read_document(content, name)
    assert caught.value.path == name
    assert caught.value.place.startswith(where)


def test_a_yaml_bomb_stays_small():
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    bomb = "a0: &a0 x\n" + "\n".join(lines)
    tracemalloc.start()
    try:
        with pytest.raises(BrokenFile, match="aliases"):
            read_document(bomb.encode(), "bomb.yaml")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_whatever_the_bytes_reading_ends_in_a_value_or_a_broken_file(content):
    for name in ("d.json", "d.yaml"):
        with suppress(BrokenFile):
            read_document(content, name)
