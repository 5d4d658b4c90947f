"""The earlier system's data taken apart: what is migrated, what is not, and what is said of it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_migration import plan

from actors.errors import InvalidChange
from actors.migration import read_document
from actors.models import InstanceConfig, InstanceState

KEY = "k-0123456789abcdef-east"
SETTINGS = {
    "name": "east",
    "provider_type": "azure",
    "api_key": KEY,
    "api_base": "https://east.example",
    "api_version": "2024-05-15",
    "priority": 5,
    "weight": 50,
    "max_tpm": 30000,
    "max_input_tokens": 4000,
    "supported_models": ["gpt-4"],
    "model_deployments": {"gpt-4": "four"},
    "enabled": True,
    "timeout_seconds": 45.0,
    "retry_count": 2,
}
RUNTIME = {
    "status": "healthy",
    "error_count": 3,
    "last_error": "HTTP 500",
    "rate_limited_until": None,
    "current_tpm": 12,
    "current_rpm": 1,
    "total_requests": 100,
    "successful_requests": 97,
    "last_used": 1714400000.5,
    "last_error_time": 1714300000.0,
    "avg_latency_ms": 812.5,
    "utilization_percentage": 0.04,
    "connection_status": "connected",
    "health_status": "healthy",
}


def record(**fields):
    """A record as short as it can be, with `fields` in it; `...` takes one away."""
    short = {"api_key": KEY, "api_base": "https://east.example", "supported_models": ["gpt-4"]}
    return {name: value for name, value in {**short, **fields}.items() if value is not ...}


def plan_one(**fields):
    """The plan of one record named `east`, which has to be a good one."""
    made = plan({"east": record(**fields)})
    assert not made.skipped
    return made


def as_yaml(document):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_dump(document).encode()


# -- shapes ------------------------------------------------------------------------------------

SHAPES = {
    "keyed by name": {"east": {**SETTINGS, **RUNTIME}},
    "keyed, with stats": {"east": {**SETTINGS, "stats": RUNTIME}},
    "keyed, the name only as key": {
        "east": {k: v for k, v in {**SETTINGS, **RUNTIME}.items() if k != "name"}
    },
    "a list": {"instances": [{**SETTINGS, **RUNTIME}]},
    "a list, with stats": {"instances": [{**SETTINGS, "stats": RUNTIME}]},
    "an object under instances": {"instances": {"east": {**SETTINGS, **RUNTIME}}},
    "nothing but a list": [{**SETTINGS, **RUNTIME}],
}


@pytest.mark.parametrize("document", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("written", [lambda document: json.dumps(document).encode(), as_yaml])
def test_every_earlier_shape_gives_the_same_configuration_and_state(document, written):
    made = plan(read_document(written(document), "instance_data.json"))

    assert made.configs == {"east": InstanceConfig(**SETTINGS)}
    assert made.states == {"east": InstanceState(name="east", **RUNTIME)}
    assert (made.skipped, made.unchanged, made.unknown, made.warnings) == ({}, (), {}, ())


def test_an_instance_may_be_called_instances():
    made = plan({"instances": record(), "west": record()})
    assert list(made.configs) == ["instances", "west"]


@pytest.mark.parametrize(
    "document", [None, 7, "text", True, {"instances": 7}, {"instances": "east"}]
)
def test_a_document_of_another_shape_is_refused(document):
    with pytest.raises(InvalidChange, match="keyed by instance name"):
        plan(document)


def test_empty_documents_ask_for_nothing():
    for document in ({}, [], {"instances": []}, {"instances": {}}):
        assert not plan(document).configs


def test_other_sections_are_named_and_left_out():
    made = plan(
        {"routing": {"strategy": "failover"}, "port": 3010, "instances": [record(name="a")]}
    )
    assert list(made.configs) == ["a"]
    assert made.warnings == ("not about instances, and left out: routing, port",)


# -- splitting ---------------------------------------------------------------------------------


def test_unknown_fields_are_kept_aside_with_their_values():
    made = plan_one(tags={"team": "a"}, stats={"total_tokens": 9, "error_count": 1})
    assert made.unknown == {"east": {"tags": {"team": "a"}, "total_tokens": 9}}
    assert made.states["east"].error_count == 1
    assert made.configs["east"].model_extra == {}


def test_a_proxy_of_the_instance_is_carried_over():
    made = plan_one(proxy_url="http://user:pass@proxy.example:8080")
    assert made.configs["east"].model_extra == {"proxy_url": "http://user:pass@proxy.example:8080"}
    assert "pass" not in str([made.warnings, made.skipped, made.unknown])


@pytest.mark.parametrize(
    ("field", "value", "taken"),
    [
        ("priority", "5", 5),
        ("max_tpm", "30000", 30000),
        ("max_tpm", 30000.0, 30000),
        ("retry_count", " 2 ", 2),
        ("timeout_seconds", "45.5", 45.5),
        ("enabled", "False", False),
        ("enabled", 1, True),
        ("provider_type", "Azure", "azure"),
        ("provider_type", "openai", "generic"),
        ("supported_models", "gpt-4, gpt-4o,", ("gpt-4", "gpt-4o")),
        ("supported_models", ["gpt-4", "gpt-4"], ("gpt-4",)),
    ],
)
def test_settings_whose_meaning_is_clear_are_converted_and_reported(field, value, taken):
    made = plan_one(**{field: value})
    assert getattr(made.configs["east"], field) == taken
    said = [warning for warning in made.warnings if warning.startswith(f"east: {field} was taken")]
    assert bool(said) == (value != taken)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", "five"),
        ("priority", 1.5),
        ("priority", True),
        ("max_tpm", 0),
        ("max_tpm", "30,000"),
        ("enabled", "perhaps"),
        ("enabled", 2),
        ("timeout_seconds", "nan"),
        ("timeout_seconds", -1),
        ("provider_type", "elsewhere"),
        ("supported_models", {"gpt-4": True}),
        ("model_deployments", ["gpt-4"]),
        ("api_base", "east.example"),
        ("api_base", ...),
        ("api_key", ...),
        ("api_key", ""),
        ("api_key", None),
        ("api_key", "********"),
        ("api_key", "${NO_SUCH_VARIABLE_ANYWHERE}"),
        ("proxy_url", 8080),
        ("proxy_url", "socks5://user:pass@proxy.example"),
        ("name", "west"),
        ("name", 7),
    ],
)
def test_a_record_without_a_clear_meaning_is_skipped_with_the_field_and_others_are_not(
    field, value
):
    made = plan({"bad": record(**{field: value}), "good": record()})
    assert list(made.configs) == list(made.states) == ["good"]
    [(label, reason)] = made.skipped.items()
    assert label == "bad"
    assert reason.startswith(f"{field}: ")


@pytest.mark.parametrize("bad", [None, 7, "text", [], True])
def test_what_is_no_record_is_skipped_by_its_place(bad):
    assert list(plan({"bad": bad, "good": record()}).skipped) == ["bad"]
    assert list(plan([record(name="good"), bad]).skipped) == ["instances[1]"]


def test_of_two_records_with_one_name_the_first_counts():
    made = plan([record(name="a", priority=1), record(name="a", priority=2)])
    assert made.configs["a"].priority == 1
    assert made.skipped == {"instances[1]": "name: is 'a', as an earlier record's is"}


@pytest.mark.parametrize("name", ["", " ", "a/b", "a b", "..", "x" * 65, "ä", "new", "migrate"])
def test_a_name_that_can_not_be_used_is_skipped(name):
    made = plan({name: record()})
    assert not made.configs
    assert len(made.skipped) == 1


def test_null_and_empty_settings_take_their_defaults():
    made = plan_one(api_version="", max_tpm=None, model_deployments=None, retry_count="")
    config = made.configs["east"]
    assert config == InstanceConfig(name="east", **record())
    assert made.warnings == ()


def test_an_instance_that_would_serve_nothing_is_pointed_out():
    assert "names no models" in plan_one(supported_models=[]).warnings[0]
    assert not plan_one(supported_models=[], provider_type="generic").warnings


# -- runtime values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("active", "healthy"),
        ("Healthy", "healthy"),
        ("ERROR", "error"),
        ("rate-limited", "rate_limited"),
        ("unhealthy", "error"),
    ],
)
def test_earlier_words_for_the_status_are_understood(word, status):
    made = plan_one(status=word)
    assert made.states["east"].status == status
    assert made.warnings == (f"east: status was taken as {status!r}",)


def test_an_instance_that_was_switched_off_stays_off_unless_it_says_otherwise():
    assert not plan_one(status="disabled").configs["east"].enabled
    assert plan_one(status="disabled", enabled=True).configs["east"].enabled


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1714400000, 1714400000),
        ("1714400000.5", 1714400000.5),
        (1714400000500, 1714400000.5),
        ("2024-04-29T14:13:20+00:00", 1714400000),
        ("2024-04-29T14:13:20Z", 1714400000),
        ("2024-04-29T16:13:20+02:00", 1714400000),
        ("2024-04-29 14:13:20", 1714400000),
    ],
)
def test_times_are_understood_in_seconds_milliseconds_and_iso_8601(value, seconds):
    assert plan_one(last_used=value).states["east"].last_used == seconds


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("error_count", -1),
        ("error_count", "many"),
        ("current_tpm", 1.5),
        ("last_used", "yesterday"),
        ("avg_latency_ms", float("inf")),
        ("last_error", {"message": "x"}),
        ("status", "confused"),
        ("connection_status", 7),
    ],
)
def test_a_wrong_runtime_value_is_left_out_and_costs_nothing_else(field, value):
    made = plan_one(**{field: value, "total_requests": 7})
    assert made.states["east"] == InstanceState(name="east", total_requests=7)
    [warning] = made.warnings
    assert warning.startswith(f"east: {field} ")
    assert warning.endswith("left out")


def test_counters_are_made_consistent():
    state = plan_one(successful_requests=9, total_requests=4).states["east"]
    assert (state.successful_requests, state.total_requests) == (9, 9)


# -- existing instances ------------------------------------------------------------------------


def test_existing_instances_are_left_alone_and_the_difference_named():
    made = plan({"east": record(priority=9, weight=1)}, [InstanceConfig(name="east", **record())])
    assert not made.configs
    assert not made.states
    assert made.skipped == {
        "east": "exists already, with another priority, weight; overwrite replaces it"
    }


def test_overwriting_replaces_the_settings_that_the_record_names_and_no_state():
    present = InstanceConfig(name="east", **record(priority=1, retry_count=9), from_later=True)
    made = plan({"east": record(priority=2, total_requests=7)}, [present], overwrite=True)
    config = made.configs["east"]
    assert (config.priority, config.retry_count) == (2, 9)
    assert config.model_extra == {"from_later": True}
    assert not made.states


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_was_migrated_is_unchanged_the_second_time(overwrite):
    document = {
        "a": record(priority="7", status="active", proxy_url="http://proxy.example"),
        "b": record(api_base="https://b.example/", supported_models="x, y", tags=1),
    }
    first = plan(document, overwrite=overwrite)
    second = plan(document, first.configs.values(), overwrite=overwrite)
    assert second.unchanged == ("a", "b")
    assert not second.configs
    assert not second.states
    assert not second.skipped


# -- secrets -----------------------------------------------------------------------------------


def test_no_reason_and_no_warning_repeats_a_key():
    document = {
        "wrong": record(priority=KEY, last_error=f"401 for {KEY}"),
        "twice": record(status=KEY, provider_type=[KEY]),
        "spaced": record(api_key=f"a {KEY}\u00e9"),
        KEY: record(name="other"),
        "fine": record(status=KEY, error_count=KEY, last_error=f"401 for {KEY}"),
    }
    made = plan(document)
    assert KEY not in str([*made.skipped.values(), *made.warnings])
    assert made.states["fine"].last_error == "401 for ****"


# -- anything at all ---------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
fields = [*SETTINGS, *RUNTIME, "stats", "proxy_url", "tags"]


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "instances", "x y"]) | st.text(max_size=5),
        st.dictionaries(st.sampled_from(fields), plain) | plain,
    ),
    st.booleans(),
)
def test_whatever_the_document_the_plan_accounts_for_each_record_and_can_be_repeated(
    document, overwrite
):
    try:
        first = plan(document, overwrite=overwrite)
    except InvalidChange:
        return
    assert not set(first.configs) & {*first.skipped, *first.unchanged}
    assert set(first.states) <= set(first.configs)
    for name, config in first.configs.items():
        assert config.name == name
    second = plan(document, first.configs.values(), overwrite=overwrite)
    assert not second.configs
    assert set(second.unchanged) == set(first.configs)
    assert second.skipped == first.skipped
