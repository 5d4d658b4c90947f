import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokens.output import (
    DEFAULT_OUTPUT_TOKENS,
    MAX_MODELS,
    Allowance,
    EstimateRecord,
    choices,
    generated,
    output_limit,
)


@pytest.mark.parametrize(
    ("kind", "body", "limit"),
    [
        ("chat", {"max_tokens": 100}, 100),
        ("chat", {"max_completion_tokens": 50}, 50),
        ("chat", {"max_completion_tokens": 50, "max_tokens": 100}, 50),
        ("chat", {"max_completion_tokens": None, "max_tokens": 100}, 100),
        ("chat", {"max_tokens": 100, "n": 3}, 100),
        ("completions", {"max_tokens": 0}, 0),
        ("responses", {"max_output_tokens": 70}, 70),
        ("responses", {"max_tokens": 70}, None),
        ("chat", {}, None),
        ("speech", {"max_tokens": 5}, None),
        ("embeddings", {"max_tokens": 5}, 0),
        ("moderations", {}, 0),
    ],
)
def test_the_limit_is_what_the_request_says_for_each_answer(kind, body, limit):
    assert output_limit(kind, body) == limit


@pytest.mark.parametrize("value", [True, -5, "10", 1.5, None, [], {}])
def test_a_value_that_is_no_number_of_tokens_counts_as_absent(value):
    assert output_limit("chat", {"max_tokens": value}) is None
    assert generated("chat", {"n": value, "best_of": value}) == 1


@pytest.mark.parametrize(
    ("kind", "body", "made", "returned"),
    [
        ("chat", {}, 1, 1),
        ("chat", {"n": 8}, 8, 8),
        ("chat", {"n": 8, "prompt": ["a", "b"]}, 8, 8),
        ("completions", {"n": 2, "best_of": 5}, 5, 2),
        ("completions", {"prompt": ["a"] * 50}, 50, 50),
        ("completions", {"prompt": [[1, 2], [3]], "n": 2, "best_of": 3}, 6, 4),
        ("completions", {"prompt": [1, 2, 3], "best_of": 3}, 3, 1),
        ("completions", {"prompt": "a", "best_of": 3}, 3, 1),
        ("completions", {"prompt": []}, 1, 1),
    ],
)
def test_answers_are_made_and_returned_for_each_prompt(kind, body, made, returned):
    assert generated(kind, body) == made
    assert choices(kind, body) == returned


def test_an_unknown_model_is_expected_to_answer_the_default():
    assert Allowance().expected("gpt-4o") == DEFAULT_OUTPUT_TOKENS > 0


def test_the_first_answer_already_teaches():
    allowance = Allowance()
    allowance.observe("gpt-4o", 40)
    assert allowance.expected("gpt-4o") == 40
    assert allowance.expected("gpt-4") == DEFAULT_OUTPUT_TOKENS


def test_nine_answers_in_ten_fit():
    allowance = Allowance()
    for output in range(1, 161):
        allowance.observe("gpt-4o", output)
    assert allowance.expected("gpt-4o") == 144


def test_only_the_last_256_answers_matter():
    allowance = Allowance()
    for _ in range(256):
        allowance.observe("gpt-4o", 10_000)
    for _ in range(256):
        allowance.observe("gpt-4o", 7)
    assert allowance.expected("gpt-4o") == 7


def test_it_is_brought_up_to_date_every_sixteen_answers():
    allowance = Allowance()
    for _ in range(16):
        allowance.observe("gpt-4o", 10)
    for _ in range(15):
        allowance.observe("gpt-4o", 999)
    assert allowance.expected("gpt-4o") == 10
    allowance.observe("gpt-4o", 999)
    assert allowance.expected("gpt-4o") == 999


@given(st.lists(st.integers(-5, 3000), min_size=1, max_size=600))
def test_it_is_never_zero_and_never_more_than_was_seen(outputs):
    allowance = Allowance()
    for output in outputs:
        allowance.observe("m", output)
    assert 1 <= allowance.expected("m") <= max(DEFAULT_OUTPUT_TOKENS, *outputs)


def test_the_model_not_heard_of_for_longest_is_forgotten():
    allowance = Allowance()
    allowance.observe("first", 5)
    allowance.observe("second", 5)
    for number in range(MAX_MODELS - 2):
        allowance.observe(f"model-{number}", 5)
    allowance.observe("first", 5)
    allowance.observe("one-more", 5)
    assert allowance.expected("first") == 5
    assert allowance.expected("second") == DEFAULT_OUTPUT_TOKENS


def test_the_record_compares_estimates_with_what_was_reported():
    record = EstimateRecord()
    record.observe("gpt-4o", 100, 150)
    record.observe("gpt-4o", 100, 50)
    record.observe("gpt-4o", 200, 200)
    accuracy = record.snapshot()["gpt-4o"]
    assert (accuracy.requests, accuracy.estimated_tokens, accuracy.actual_tokens) == (3, 400, 400)
    assert accuracy.mean_ratio == pytest.approx(1.0)
    assert (accuracy.lowest_ratio, accuracy.highest_ratio) == (0.5, 1.5)


def test_without_two_numbers_nothing_is_recorded():
    record = EstimateRecord()
    record.observe("gpt-4o", 0, 10)
    record.observe("gpt-4o", 10, 0)
    assert record.snapshot() == {}


def test_the_record_is_bounded():
    record = EstimateRecord()
    for number in range(MAX_MODELS + 50):
        record.observe(f"model-{number}", 10, 10)
    snapshot = record.snapshot()
    assert len(snapshot) == MAX_MODELS
    assert "model-49" not in snapshot
