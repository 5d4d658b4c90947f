"""Changes that an operator asks for: what is accepted, what is refused, and in which words."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.changes import (
    MOST_USED,
    is_masked,
    mask_secret,
    masked,
    merged_config,
    merged_state,
    new_config,
)
from actors.errors import InvalidChange
from actors.models import InstanceConfig, InstanceState

MINIMAL = {"name": "a", "api_key": "k" * 32, "api_base": "https://a.example"}
LONG_KEY = "0123456789abcdefWXYZ"


@pytest.fixture
def current():
    return InstanceConfig(**{**MINIMAL, "api_key": LONG_KEY, "region": "of a newer version"})


@pytest.fixture
def state():
    return InstanceState(name="a", total_requests=10, successful_requests=7)


def refusal(call, *arguments):
    with pytest.raises(InvalidChange) as refused:
        call(*arguments)
    return dict(refused.value.problems)


# -- a new instance ----------------------------------------------------------------------------


def test_the_three_fields_without_a_default_suffice():
    config = new_config(MINIMAL)
    assert (config.priority, config.weight, config.max_tpm, config.retry_count) == (
        *(100, 100, 240_000, 3),
    )


def test_an_integer_does_for_seconds():
    assert new_config({**MINIMAL, "timeout_seconds": 30}).timeout_seconds == 30.0


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "a/b", "letters, digits, '.', '_' or '-', not 'a/b'"),
        ("name", "a\n", "letters, digits"),
        ("name", "x" * 65, "1 to 64"),
        ("name", "", "1 to 64"),
        ("name", "..", "must not consist of dots"),
        ("name", None, "must not be null"),
        ("provider_type", "azur", "must be 'azure' or 'generic', not 'azur'"),
        ("api_key", "", "at least 1 character"),
        ("api_key", "two\nlines", "printable ASCII"),
        ("api_key", "${SURELY_NOT_SET}", "environment variable SURELY_NOT_SET is not set"),
        ("api_key", "****abcd", "masked key"),
        ("api_base", "a.example", "https://example.openai.azure.com"),
        ("api_version", "2024/10", "a version such as 2024-10-21, not '2024/10'"),
        ("priority", "50", "must be a valid integer, not '50'"),
        ("priority", True, "must be a valid integer, not true"),
        ("priority", 5.0, "must be a valid integer, not 5.0"),
        ("priority", -1, "must be greater than or equal to 0, not -1"),
        ("max_tpm", 0, "must be greater than or equal to 1, not 0"),
        ("max_tpm", None, "must not be null; the default is 240000"),
        ("supported_models", None, "the default is []"),
        ("model_deployments", None, "the default is {}"),
        ("enabled", None, "the default is true"),
        ("enabled", "yes", "must be a valid boolean, not 'yes'"),
        ("supported_models", "gpt-4o", "must be a list, not 'gpt-4o'"),
        ("supported_models", ["a", "b", "a"], "names 'a' 2 times; once is enough"),
        ("model_deployments", ["a"], "must be an object, not a list"),
        ("timeout_seconds", "60", "must be a valid number, not '60'"),
        ("timeout_seconds", True, "must be a valid number, not true"),
        ("timeout_seconds", 0, "must be greater than 0, not 0"),
        ("timeout_seconds", float("inf"), "must be a finite number"),
        ("prioritiy", 5, "is not a known field; did you mean priority?"),
        ("colour", "red", "is not a known field; the fields are name, provider_type,"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(field, value, words):
    problems = refusal(new_config, {**MINIMAL, field: value})
    assert list(problems) == [field]
    assert words in problems[field]


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("supported_models", ["a", 5], "supported_models[1]"),
        ("model_deployments", {"a": 5}, "model_deployments.a"),
        ("model_deployments", {"": "x"}, "model_deployments.''"),
    ],
)
def test_a_problem_within_a_field_is_placed(field, value, place):
    assert list(refusal(new_config, {**MINIMAL, field: value})) == [place]


def test_all_problems_are_told_at_once():
    problems = refusal(new_config, {"name": "a b", "priority": -1})
    assert list(problems) == ["name", "api_key", "api_base", "priority"]
    assert problems["api_key"] == "is missing, and it has no default"


@pytest.mark.parametrize("document", [None, [], "text", 5, [MINIMAL]])
def test_anything_but_an_object_is_refused(document):
    assert "must be a JSON object" in refusal(new_config, document)["document"]


@pytest.mark.parametrize("field", ["api_key", "api_base"])
@pytest.mark.parametrize(
    "value", ["sécret-42", ["secret-42"], {"secret-42": 1}, "https://u:sécret-42@h?"]
)
def test_no_message_repeats_what_may_be_a_secret(field, value):
    assert "-42" not in str(refusal(new_config, {**MINIMAL, field: value}))


def test_long_values_are_not_repeated_in_full():
    problems = refusal(new_config, {**MINIMAL, "api_version": "x" * 10_000, "y" * 10_000: 1})
    assert len(str(problems)) < 1000
    assert len(str(refusal(new_config, {**MINIMAL, "api_version": "x" * 10_000}))) < 300


def test_a_reference_that_resolves_is_kept(monkeypatch):
    monkeypatch.setenv("KEY_OF_A", "value")
    assert new_config({**MINIMAL, "api_key": "${KEY_OF_A}"}).api_key == "${KEY_OF_A}"


# -- a changed configuration -------------------------------------------------------------------


def test_only_the_fields_given_change_and_unknown_ones_stay(current):
    merged, changed = merged_config(current, {"weight": 100, "priority": 50})
    assert changed == ("priority",)
    assert merged == current.model_copy(update={"priority": 50})
    assert merged.model_extra == {"region": "of a newer version"}


def test_nothing_given_changes_nothing(current):
    assert merged_config(current, {}) == (current, ())


def test_what_was_read_can_be_sent_back(current):
    assert merged_config(current, masked(current)) == (current, ())


def test_a_new_key_replaces_the_old_one(current):
    merged, changed = merged_config(current, {"api_key": "a new key"})
    assert (merged.api_key, changed) == ("a new key", ("api_key",))


def test_the_mask_of_another_key_is_refused(current):
    assert (
        "send the key itself" in refusal(merged_config, current, {"api_key": "****1234"})["api_key"]
    )


def test_a_reference_that_has_gone_stops_no_other_change(current):
    orphan = current.model_copy(update={"api_key": "${SURELY_NOT_SET}"})
    merged, changed = merged_config(orphan, {"api_key": "${SURELY_NOT_SET}", "priority": 1})
    assert (merged.api_key, changed) == ("${SURELY_NOT_SET}", ("priority",))


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"name": "b"}, "name", "add an instance under the new name"),
        ({"api_key": None}, "api_key", "leave the field out"),
        ({"api_key": "${SURELY_NOT_SET}"}, "api_key", "SURELY_NOT_SET is not set"),
        ({"priority": None}, "priority", "the default is 100"),
        ({"priority": "50"}, "priority", "integer"),
        ({"region": "x"}, "region", "is not a known field"),
        ({"supported_models": ["a", "a"]}, "supported_models", "once is enough"),
    ],
)
def test_a_refused_change_names_the_field(current, changes, field, words):
    problems = refusal(merged_config, current, {"weight": 5, **changes})
    assert words in problems[field]
    assert len(problems) == 1


# -- a corrected state -------------------------------------------------------------------------


def test_only_the_fields_given_come_back_validated(state):
    changes = {"name": "a", "status": "rate_limited", "last_used": 5, "last_error": None}
    assert merged_state(state, changes) == {
        "status": "rate_limited",
        "last_used": 5.0,
        "last_error": None,
    }


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"name": "b"}, "name", "can't be changed"),
        ({"utilization_percentage": 5.0}, "utilization_percentage", "set current_tpm"),
        ({"status": "fine"}, "status", "'healthy', 'rate_limited' or 'error', not 'fine'"),
        ({"status": None}, "status", 'the default is "healthy"'),
        ({"error_count": -1}, "error_count", "not -1"),
        ({"current_tpm": 1.5}, "current_tpm", "integer"),
        ({"current_tpm": 10**30}, "current_tpm", "less than or equal"),
        ({"current_rpm": MOST_USED + 1}, "current_rpm", "less than or equal"),
        ({"rate_limited_until": "soon"}, "rate_limited_until", "number"),
        ({"last_error": 5}, "last_error", "string"),
        ({"stauts": "error"}, "stauts", "did you mean status?"),
        ({"successful_requests": 11}, "successful_requests", "total_requests (10)"),
        ({"total_requests": 6}, "total_requests", "successful_requests (7)"),
        ({"total_requests": 1, "successful_requests": 2}, "successful_requests", "set both"),
    ],
)
def test_a_refused_correction_names_the_field(state, changes, field, words):
    problems = refusal(merged_state, state, changes)
    assert list(problems) == [field]
    assert words in problems[field]


def test_every_observed_field_but_the_derived_one_can_be_set(state):
    values = state.model_dump()
    del values["utilization_percentage"]
    settable = {field: value for field, value in values.items() if field != "name"}
    assert merged_state(state, values) == settable
    assert len(settable) == 13


# -- masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (LONG_KEY, "****WXYZ"),
        ("0123456789abcdef", "****cdef"),
        ("0123456789abcde", "****"),
        ("short", "****"),
        ("${KEY_OF_A}", "${KEY_OF_A}"),
    ],
)
def test_a_key_is_masked_and_a_reference_is_not(key, shown):
    assert mask_secret(key) == shown
    assert is_masked(shown) == (not shown.startswith("$"))
    assert not is_masked(key)


def test_what_is_shown_is_json_with_the_key_masked_and_without_unknown_fields(current):
    shown = json.loads(json.dumps(masked(current)))
    assert list(shown) == list(InstanceConfig.model_fields)
    assert shown["api_key"] == "****WXYZ"
    assert LONG_KEY not in json.dumps(shown)


# -- invariants --------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
changes = st.dictionaries(st.sampled_from(list(InstanceConfig.model_fields)), values, max_size=4)
corrections = st.dictionaries(st.sampled_from(list(InstanceState.model_fields)), values, max_size=4)


def attempt(call, *arguments):
    """The result, or else the fields that were refused."""
    try:
        return call(*arguments), None
    except InvalidChange as refused:
        return None, {place.split(".")[0].split("[")[0] for place, _ in refused.problems}


@settings(deadline=None)
@given(changes)
def test_a_change_is_merged_exactly_or_refused_with_a_field_that_was_given(given_changes):
    current = InstanceConfig(**MINIMAL)
    result, refused = attempt(merged_config, current, given_changes)
    if result is None:
        assert refused
        assert refused <= set(given_changes)
    else:
        merged, changed = result
        before, after = current.model_dump(), merged.model_dump()
        assert set(changed) == {field for field in after if after[field] != before[field]}
        assert set(changed) <= set(given_changes)
        assert InstanceConfig.model_validate(after) == merged


@settings(deadline=None)
@given(corrections)
def test_a_correction_is_merged_or_refused_with_a_field_that_was_given(given_changes):
    current = InstanceState(name="a", total_requests=5)
    valid, refused = attempt(merged_state, current, given_changes)
    if valid is None:
        assert refused
        assert refused <= set(given_changes)
    else:
        assert set(valid) == set(given_changes) - {"name"}
        InstanceState.model_validate({**current.model_dump(), **valid})
