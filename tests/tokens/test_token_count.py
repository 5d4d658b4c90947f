"""Counts against published ones, and how counting is spread over slices."""

import pytest
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from request_bodies import data_url
from request_bodies import exact_tokens as exact

from proxy.tokens import count as counting
from proxy.tokens.bounds import bounds
from proxy.tokens.count import MAX_CHARS, SLICE_CHARS, count
from proxy.tokens.prompt import MAX_ITEMS
from proxy.tokens.vocabulary import encoding_for

# The examples of the OpenAI cookbook, "How to count tokens with tiktoken", sections 6 and 7, with
# the prompt_tokens that the API answered to them there.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate "
        "jargon into plain English.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "New synergies will help drive top-line growth.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities "
        "for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client "
        "deliverable.",
    },
]
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_FUNCTION = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {
                "type": "string",
                "description": "The city and state, e.g. San Francisco, CA",
            },
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
}
WEATHER_TOOL = {"type": "function", "function": WEATHER_FUNCTION}


def tokens(text, model="gpt-4o"):
    return len(encoding_for(model).encode(text, disallowed_special=()))


def chat(*messages, **fields):
    return {"messages": list(messages), **fields}


@pytest.mark.parametrize(
    ("model", "published"),
    [("gpt-35-turbo", 129), ("gpt-4-0613", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)],
)
def test_messages_count_what_the_api_counted(model, published):
    assert exact("chat", {"messages": JARGON}, model) == published


@pytest.mark.parametrize(
    ("model", "published"),
    [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)],
)
@pytest.mark.parametrize("tools", [{"tools": [WEATHER_TOOL]}, {"functions": [WEATHER_FUNCTION]}])
def test_functions_count_what_the_api_counted(model, published, tools):
    assert exact("chat", {"messages": WEATHER, **tools}, model) == published


def test_the_responses_shape_of_a_function_counts_the_same():
    nested = exact("responses", {"input": "hi", "tools": [WEATHER_TOOL]})
    flat = exact("responses", {"input": "hi", "tools": [{"type": "function", **WEATHER_FUNCTION}]})
    assert nested == flat


def test_built_in_tools_count_nothing():
    assert exact("responses", {"input": "hi", "tools": [{"type": "web_search"}]}) == exact(
        "responses", {"input": "hi"}
    )


def test_nested_properties_count_like_those_of_the_first_level():
    def with_properties(properties):
        schema = {"type": "object", "properties": properties}
        return exact("chat", chat(tools=[{"function": {"name": "f", "parameters": schema}}]))

    inner = {"street": {"type": "string", "description": "Street."}}
    flat = with_properties({"address": {"type": "object"}})
    nested = with_properties({"address": {"type": "object", "properties": inner}})
    listed = with_properties({"address": {"type": "object", "items": {"properties": inner}}})
    assert nested == listed == flat + 3 + 3 + tokens("street:string:Street")


def test_parts_of_a_message_count_like_one_text_each():
    whole = {"role": "user", "content": "Describe this"}
    parts = {"role": "user", "content": [{"type": "text", "text": "Describe this"}]}
    assert exact("chat", chat(whole)) == exact("chat", chat(parts))


def test_an_image_adds_its_price_to_the_text():
    image = {"type": "image_url", "image_url": {"url": data_url(1024, 1024), "detail": "high"}}
    with_image = chat({"role": "user", "content": [{"type": "text", "text": "See"}, image]})
    assert (
        exact("chat", with_image) == exact("chat", chat({"role": "user", "content": "See"})) + 765
    )


def test_a_screenshot_costs_what_the_same_image_costs():
    url = data_url(1024, 1024)
    output = {"type": "computer_screenshot", "image_url": url}
    shown = exact("responses", {"input": [{"type": "computer_call_output", "output": output}]})
    image = {"role": "", "content": [{"type": "input_image", "image_url": url}]}
    assert shown == exact("responses", {"input": [image]})


def test_listed_tools_count_like_given_ones():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"name": "f", "description": "Does it", "input_schema": schema}
    listed = exact("responses", {"input": [{"type": "mcp_list_tools", "tools": [tool]}]})
    given = {"name": "f", "description": "Does it", "parameters": schema}
    assert listed == exact("responses", {"input": [{}], "tools": [given]}) > 20


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (
            "chat",
            lambda schema: {"response_format": {"type": "json_schema", "json_schema": schema}},
        ),
        ("responses", lambda schema: {"text": {"format": {"type": "json_schema", **schema}}}),
    ],
)
def test_the_schema_of_an_answer_counts_like_a_function(kind, wanted):
    schema = WEATHER_FUNCTION["parameters"]
    body = wanted({"name": "weather", "schema": schema})
    function = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    assert exact(kind, body) == exact(kind, {"tools": [function]}) > 40


def test_tool_calls_count_their_names_and_arguments():
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    expected = 3 + 3 + tokens("assistant") + tokens("f") + tokens('{"a":1}')
    assert exact("chat", chat(called)) == expected


def test_a_second_of_speech_counts_ten_tokens():
    second = "A" * (48_000 * 4 // 3)
    part = {"type": "input_audio", "input_audio": {"data": second, "format": "wav"}}
    silent = exact("chat", chat({"role": "user", "content": []}))
    assert exact("chat", chat({"role": "user", "content": [part]})) == silent + 11


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("tiktoken is great!", 6),
        (["tiktoken is great!", "tiktoken is great!"], 12),
        ([83, 8251, 2488], 3),
        ([[83, 8251], [2488]], 3),
        ([], 0),
        ("", 0),
    ],
)
def test_inputs_may_be_texts_or_tokens_or_lists_of_them(value, expected):
    assert exact("embeddings", {"input": value}) == expected
    assert exact("completions", {"prompt": value}) == expected
    assert exact("moderations", {"input": value}) == expected


def test_a_responses_text_counts_as_the_message_it_stands_for():
    message = {"role": "user", "content": [{"type": "input_text", "text": "Hello there"}]}
    assert exact("responses", {"input": "Hello there"}) == exact("responses", {"input": [message]})


def test_what_a_responses_item_hides_from_the_model_counts_nothing():
    item = {"type": "reasoning", "id": "rs_1", "encrypted_content": "x" * 1000, "summary": []}
    assert exact("responses", {"input": [item]}) == 3 + 3


def test_instructions_are_a_message():
    plain = exact("responses", {"input": "hi"})
    assert exact("responses", {"input": "hi", "instructions": "Be brief"}) == (
        plain + 3 + tokens("system") + tokens("Be brief")
    )


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("chat", lambda data: {"type": "file", "file": {"filename": "a", "file_data": data}}),
        ("responses", lambda data: {"type": "input_file", "filename": "a", "file_data": data}),
    ],
)
def test_a_file_is_counted_at_what_it_probably_costs(kind, part):
    def both(data):
        message = {"role": "user", "content": [part(data)]}
        body = {"messages": [message], "input": [message]}
        return exact(kind, body), bounds(kind, body, len(data) + 200, "gpt-4o")

    nothing, _ = both("")
    pdf, (low, likely, high) = both(base64_url("application/pdf", 300_000))
    assert pdf - nothing == 3000
    assert (low, likely) == (nothing, pdf)
    assert high >= 400_000, "nobody knows what is in it"
    text, _ = both(base64_url("text/plain", 9000))
    assert text - nothing == 2250


def test_a_guess_does_not_make_a_large_file_too_large_for_good():
    part = {"type": "input_file", "file_data": base64_url("application/pdf", 20_000_000)}
    body = {"input": [{"role": "user", "content": [part]}]}
    assert 10_000 < exact("responses", body) < 30_000


def base64_url(media_type, content_bytes):
    return f"data:{media_type};base64,{'A' * (content_bytes * 4 // 3)}"


def test_text_that_spells_a_special_token_is_text():
    assert exact("embeddings", {"input": "<|endoftext|>"}) == 7


def test_half_a_surrogate_pair_is_counted_as_the_replacement_character():
    assert exact("embeddings", {"input": "\ud800"}) == tokens("\ufffd")


# Slices.


@settings(deadline=None)
@given(texts=st.lists(st.text(max_size=100), max_size=5), limit=st.integers(20, 40))
def test_slices_hold_every_character_once_and_never_more_than_the_limit(texts, limit):
    batches = list(counting.slices(texts, limit))
    assert "".join(piece for batch in batches for piece in batch) == "".join(texts)
    assert all(sum(map(len, batch)) <= limit for batch in batches)
    assert all(batches)


@settings(deadline=None)
@given(
    words=st.lists(
        st.builds(
            str.__add__,
            st.text(st.sampled_from("abZ09.,!?'s\n\t\r/-é中\u0301\u00a0\u3000\x1c"), max_size=12),
            st.sampled_from("aZ9.!'/-中\u0301"),
        ),
        max_size=60,
    ),
    gap=st.sampled_from([" ", "  "]),
    model=st.sampled_from(["gpt-4o", "gpt-4"]),
)
def test_cutting_a_text_at_spaces_leaves_its_tokens_as_they_were(words, gap, model):
    text = gap.join(words)
    cut = sum(tokens(piece, model) for piece in counting.pieces(text, 40))
    assert cut == tokens(text, model)


@pytest.mark.parametrize("character", ["a", " ", "中", "\U00012000"])
def test_a_text_without_a_place_to_cut_costs_at_most_a_token_more_per_cut(character):
    text = character * (3 * SLICE_CHARS)
    assert tokens(text) <= exact("embeddings", {"input": text}) <= tokens(text) + 3


def test_a_text_that_the_native_side_cannot_take_whole_is_counted():
    # At a million spaces the pattern's backtracking gives up and tiktoken panics.
    assert exact("embeddings", {"input": " " * 1_010_000}) == pytest.approx(1_010_000 / 128, abs=40)


# How counting asks for slices.


class Encoder:
    """Says a token for each text, until it has no more `answers`."""

    def __init__(self, answers=1000):
        self.asked = []
        self._answers = answers

    async def __call__(self, texts, name):
        await trio.lowlevel.checkpoint()
        self.asked.append((texts, name))
        return len(texts) if len(self.asked) <= self._answers else None


async def test_a_long_text_is_encoded_a_slice_at_a_time():
    encoder = Encoder()
    body = {"input": "some words " * (SLICE_CHARS // 4)}
    assert await count("embeddings", body, "gpt-4", body_bytes=10**6, encode=encoder) == 3
    sizes = [sum(map(len, texts)) for texts, _ in encoder.asked]
    assert len(sizes) == 3
    assert max(sizes) <= SLICE_CHARS
    assert sum(sizes) == len(body["input"])
    assert {name for _, name in encoder.asked} == {"cl100k_base"}


async def test_thousands_of_empty_texts_are_not_encoded_in_one_go():
    encoder = Encoder()
    body = {"input": [""] * 5000}
    assert await count("embeddings", body, "gpt-4o", body_bytes=10**6, encode=encoder) == 5000
    assert len(encoder.asked) > 1


@pytest.mark.parametrize("answers", [0, 1])
async def test_what_cannot_be_encoded_now_is_estimated(answers):
    encoder = Encoder(answers)
    body = {"input": "some words " * (SLICE_CHARS // 4)}
    counted = await count("embeddings", body, "gpt-4o", body_bytes=10**6, encode=encoder)
    assert counted == bounds("embeddings", body, 10**6, "gpt-4o").likely
    assert len(encoder.asked) == answers + 1


async def test_an_absurdly_long_text_is_estimated_instead():
    encoder = Encoder()
    body = {"input": "a" * (MAX_CHARS + 1)}
    counted = await count("embeddings", body, "gpt-4o", body_bytes=MAX_CHARS + 20, encode=encoder)
    assert counted == bounds("embeddings", body, MAX_CHARS + 20, "gpt-4o").likely
    assert encoder.asked == []


async def test_a_body_of_countless_members_is_estimated_instead():
    encoder = Encoder()
    body = {"messages": [{}] * (MAX_ITEMS + 1)}
    counted = await count("chat", body, "gpt-4o", body_bytes=100_000, encode=encoder)
    assert counted == bounds("chat", body, 100_000, "gpt-4o").likely
    assert encoder.asked == []


@pytest.mark.parametrize(
    "body",
    [{"input": [1, 2, 3]}, {"input": "text"}, {"input": [""] * (MAX_ITEMS + 1)}],
    ids=["tokens", "text", "countless"],
)
async def test_counting_is_a_checkpoint_whatever_is_counted(body):
    with trio.testing.assert_checkpoints():
        await count("embeddings", body, "gpt-4o", body_bytes=40_000)


async def test_without_text_nothing_is_encoded():
    encoder = Encoder()
    body = {"input": [1, 2, 3]}
    assert await count("embeddings", body, "gpt-4o", body_bytes=20, encode=encoder) == 3
    assert encoder.asked == []
