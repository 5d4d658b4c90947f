"""The text of the two files: what is refused where, and that nothing gets lost in writing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.models import InstanceConfig, InstanceState
from actors.records import read_configs, read_states, written

RECORD = '"api_key": "k", "api_base": "http://a"'


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("", "line 1, column 1", "the file is empty; write {} or delete it"),
        ('{\n  "a": {,}}', "line 2, column 9", "property name"),
        ('{"a": {' + RECORD + "}", "line 1, column ", "delimiter"),
        ("{} {}", "line 1, column 4", "Extra data"),
        ("[]", "top level", "must be one JSON object keyed by instance name, not a list"),
        ('{"a": 5}', "a", "must be a JSON object"),
        ('{"a": {' + RECORD + '}, "a": {' + RECORD + "}}", "a", "written more than once"),
        ('{"a": {' + RECORD + ', "weight": 1, "weight": 2}}', "a.weight", "more than once"),
        ('{"a": {' + RECORD + ', "x": [{"y": 1, "y": 2}]}}', "a.x[0].y", "more than once"),
        ('{"a": {"name": "b", ' + RECORD + "}}", "a.name", "must equal the key 'a', not 'b'"),
        ('{"a b": {' + RECORD + "}}", "a b.name", "letters, digits"),
        ('{"a": {"api_key": "k"}}', "a.api_base", "is missing"),
        ('{"a": {' + RECORD + ', "max_tpm": "50"}}', "a.max_tpm", "integer, not '50'"),
        ('{"a": {' + RECORD + ', "retry_count": true}}', "a.retry_count", "integer, not true"),
        ('{"a": {' + RECORD + ', "priority": -1}}', "a.priority", "not -1"),
        ('{"a": {' + RECORD + ', "enabled": 1}}', "a.enabled", "must be a valid boolean, not 1"),
        ('{"a": {' + RECORD + ', "supported_models": ["x", 5]}}', "a.supported_models[1]", "not 5"),
        (
            '{"a": {' + RECORD + ', "supported_models": "x"}}',
            "a.supported_models",
            "must be a list",
        ),
        (
            '{"a": {' + RECORD + ', "model_deployments": {"x": 5}}}',
            "a.model_deployments.x",
            "not 5",
        ),
        ('{"a": {' + RECORD + ', "timeout_seconds": NaN}}', "a.timeout_seconds", "finite"),
        ('{"a": {' + RECORD + ', "x": 1e999}}', "a.x", "finite"),
        ('{"a": {"api_key": "${UNSET_KEY}", "api_base": "http://a"}}', "a.api_key", "UNSET_KEY"),
        ('{"a": {"api_key": "k", "api_base": "ftp://a"}}', "a.api_base", "https://"),
        ('{"a": {"api_key": "k", "api_base": "http://a:70000"}}', "a.api_base", "65535"),
        ('{"a": {' + RECORD + ', "proxy_url": "socks5://p"}}', "a.proxy_url", "http or https"),
        ('{"a": {' + RECORD + ', "proxy_url": "http://u:pw@:1"}}', "a.proxy_url", "host"),
        ('{"a": {' + RECORD + ', "proxy_url": 12345}}', "a.proxy_url", "must be text"),
        ('{"a": ' + "[" * 100_000 + "}", "top level", "nested too deeply"),
        ('{"a": {' + RECORD + ', "x":' + "[" * 200 + "]" * 200 + "}}", "a.x", "too deeply"),
        ('{"a": {' + RECORD + ', "x":' + "9" * 5000 + "}}", "top level", "digits"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, place, reason):
    _, problems = read_configs(text.encode(), {})
    assert problems[0][0].startswith(place)
    assert reason in problems[0][1]


def test_a_record_with_another_name_is_examined_all_the_same():
    text = '{"a": {"name": "b", "api_key": "k", "api_base": "ftp://a"}}'
    configs, problems = read_configs(text.encode())
    assert configs == {}
    assert [place for place, _ in problems] == ["a.name", "a.api_base"]


def test_bytes_that_are_not_text_are_refused_with_the_place():
    assert read_configs(b'{\n"a": "\xff"}') == ({}, [("line 2, column 7", "is not UTF-8 text")])


def test_a_byte_order_mark_does_no_harm():
    assert read_configs(b"\xef\xbb\xbf{}") == ({}, [])


def test_every_problem_is_found_and_no_message_repeats_a_key():
    secret = "sk-very-secret-\u00e9"
    records = {
        "a": {"api_key": secret, "api_base": f"https://user:{secret}@a", "priority": -1},
        "b": {"api_base": "https://b"},
        "c": secret,
        "d": {"api_key": {"key": secret}, "api_base": "https://d", "weight": {"key": secret}},
        "e": {"api_key": "k", "api_base": "https://e"},
    }

    configs, problems = read_configs(json.dumps(records).encode())

    assert list(configs) == ["e"]
    assert [place for place, _ in problems] == [
        *("a.api_key", "a.api_base", "a.priority", "b.api_key", "c", "d.api_key", "d.weight")
    ]
    assert "very-secret" not in str(problems)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
models = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
extras = st.dictionaries(st.text(min_size=1).map("x_".__add__), json_values, max_size=2)
configs = st.builds(
    lambda extra, **fields: InstanceConfig(**extra, **fields),
    extras,
    name=names,
    api_key=st.from_regex(r"[!-~]{1,90}", fullmatch=True).filter(lambda key: "$" not in key),
    api_base=st.just("https://a.example"),
    priority=st.integers(0, 10**6),
    max_tpm=st.integers(1, 10**12),
    supported_models=st.lists(models, max_size=3),
    model_deployments=st.dictionaries(models, models, max_size=3),
    enabled=st.booleans(),
    timeout_seconds=st.floats(0.001, 86_400),
)
states = st.builds(
    lambda extra, **fields: InstanceState(**extra, **fields),
    extras,
    name=names,
    status=st.sampled_from(["healthy", "rate_limited", "error"]),
    last_error=st.none() | st.text(st.characters()),
    rate_limited_until=st.none() | st.floats(0, 1e10),
    total_requests=st.integers(0, 10**18),
)


def by_name(records):
    return {record.name: record for record in records}


@settings(max_examples=40, deadline=None)
@given(st.lists(configs, max_size=4).map(by_name))
def test_any_configuration_survives_being_written_and_read(records):
    again, problems = read_configs(written(records))
    assert problems == []
    assert again == records
    assert list(again) == list(records)
    assert written(again) == written(records)


@settings(max_examples=40, deadline=None)
@given(st.lists(states, max_size=4).map(by_name))
def test_any_state_survives_being_written_and_read(records):
    again, problems = read_states(written({n: s.model_dump() for n, s in records.items()}))
    assert problems == []
    assert again == records


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | json_values.map(json.dumps).map(str.encode))
def test_reading_never_fails_otherwise_than_with_a_place(content):
    records, problems = read_configs(content, {})
    assert all(place and reason for place, reason in problems)
    assert all(record.name == name for name, record in records.items())
