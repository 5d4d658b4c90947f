import json

import pytest
from hypothesis import example, given, settings
from request_bodies import ANY_BODY, KINDS, MODELS, PROPER, TEXT, exact_tokens, shortest_json_bytes

from proxy.tokens.bounds import bounds
from proxy.tokens.prompt import MAX_ITEMS


def chat(content):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}


def check_bounds(kind, body, model):
    exact = exact_tokens(kind, body, model)
    low, likely, high = bounds(kind, body, shortest_json_bytes(body), model)
    assert 0 <= low <= exact <= high
    assert low <= likely <= high


@settings(deadline=None)
@given(text=TEXT, model=MODELS)
@example(text=" " * 128 * 5, model="gpt-4o")
@example(text="\U00012000" * 5000, model="gpt-4o")
@example(text="\ud83d\ude00" * 300, model="gpt-4")
def test_any_text_has_a_count_between_its_bounds(text, model):
    check_bounds("chat", chat(text), model)
    check_bounds("embeddings", {"input": text}, model)


@settings(deadline=None)
@given(request=PROPER, model=MODELS)
def test_any_proper_request_has_a_count_between_its_bounds(request, model):
    kind, body = request
    check_bounds(kind, body, model)


@settings(deadline=None)
@given(kind=KINDS, body=ANY_BODY, model=MODELS)
def test_any_json_at_all_is_bounded_and_counted_without_an_error(kind, body, model):
    check_bounds(kind, body, model)


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": "x"}, {"input": {}}])
@pytest.mark.parametrize("kind", ["chat", "completions", "embeddings", "responses", "none"])
def test_a_request_without_input_is_next_to_nothing(kind, body):
    assert bounds(kind, body, 2, "gpt-4o").high <= 3


def test_operations_without_a_countable_input_count_nothing():
    assert bounds("none", chat("text"), 100, "gpt-4o") == (0, 0, 0)


def test_likely_is_a_quarter_of_the_characters_and_the_overhead():
    body = chat("word " * 200)
    assert bounds("chat", body, 2000, "gpt-4o").likely == 3 + 3 + (len("user") + 1000) // 4


def test_other_scripts_weigh_more_than_ascii_of_the_same_length():
    def likely(text):
        return bounds("chat", chat(text), 10**6, "gpt-4o").likely

    assert likely("a" * 3000) < likely("é" * 3000) < likely("中" * 3000) < likely("😀" * 3000)


def test_a_long_text_that_is_half_another_script_is_sampled_all_along():
    half = "a" * 50_000 + "中" * 50_000
    likely = bounds("chat", chat(half), 10**6, "gpt-4o").likely
    assert likely == pytest.approx((50_000 + 150_000) / 4, rel=0.01)


def test_the_size_of_the_body_bounds_what_a_long_text_can_be():
    body = chat("中" * 10_000)
    body_bytes = len(json.dumps(body, ensure_ascii=False).encode())
    assert bounds("chat", body, body_bytes, "gpt-4o").high <= 6 + body_bytes


@pytest.mark.parametrize(
    "messages",
    [
        [{}] * (MAX_ITEMS + 1),
        [{"content": ["x"] * (MAX_ITEMS + 1)}],
        [{str(n): "x" for n in range(MAX_ITEMS + 1)}],
        [{"content": [{"type": "image_url", "image_url": {"url": "data:,"}}] * MAX_ITEMS}],
    ],
    ids=["messages", "parts", "fields", "images"],
)
def test_a_body_of_countless_members_is_judged_by_its_size(messages):
    body = {"messages": messages}
    body_bytes = shortest_json_bytes(body)
    low, likely, high = bounds("chat", body, body_bytes, "gpt-4o")
    assert likely >= body_bytes // 4
    assert high >= body_bytes
    assert low <= exact_tokens("chat", body, "gpt-4o") <= high


def test_a_schema_nested_without_end_is_not_followed_to_its_end():
    schema = {"description": "deepest"}
    for _ in range(2000):
        schema = {"properties": {"p": schema}}
    body = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    assert bounds("chat", body, 100_000, "gpt-4o").high < 200
