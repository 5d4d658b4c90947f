"""Request bodies as Hypothesis strategies: proper ones of every kind, and any JSON at all."""

import base64
import json
import struct
from functools import partial

import trio
from hypothesis import strategies as st

from proxy.tokens.count import count

MODELS = st.sampled_from(
    ["gpt-4o", "gpt-4o-mini", "gpt-4", "gpt-35-turbo", "gpt-4.1-nano", "gpt-5.4", "o3", "my-alias"]
)
KINDS = st.sampled_from(
    [
        "chat",
        "completions",
        "embeddings",
        "responses",
        "images",
        "speech",
        "moderations",
        "none",
    ]
)

# All of Unicode, with half surrogate pairs, which JSON can express; and runs of one character,
# where the longest tokens are.
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
RUN = st.builds(
    lambda character, length: character * length,
    st.sampled_from([" ", "-", "=", "\n", "a", "é", "中", "\U0001f600", "\ud800", "\t", "</"]),
    st.integers(0, 6000),
)
TEXT = ANY_TEXT | RUN


def data_url(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)
    return "data:image/png;base64," + base64.b64encode(head + bytes(9)).decode()


DETAIL = st.sampled_from(["low", "high", "auto", "original", None, 7])
URL = st.just("https://example.com/a.png") | st.builds(
    data_url, st.integers(0, 9000), st.integers(0, 9000)
)
PART = (
    st.fixed_dictionaries({"type": st.sampled_from(["text", "input_text"]), "text": TEXT})
    | st.fixed_dictionaries(
        {
            "type": st.just("image_url"),
            "image_url": st.fixed_dictionaries({"url": URL}, optional={"detail": DETAIL}),
        }
    )
    | st.fixed_dictionaries({"type": st.just("input_image"), "image_url": URL, "detail": DETAIL})
    | st.fixed_dictionaries({"type": st.just("refusal"), "refusal": TEXT})
    | st.fixed_dictionaries(
        {
            "type": st.just("input_audio"),
            "input_audio": st.fixed_dictionaries(
                {"data": st.just("UklGRg=="), "format": st.sampled_from(["wav", "mp3"])}
            ),
        }
    )
)
FILE = st.builds(
    lambda head, content: head + base64.b64encode(content).decode(),
    st.sampled_from(["", "data:application/pdf;base64,", "data:text/plain;base64,"]),
    st.binary(max_size=600),
)
PART |= st.fixed_dictionaries({"type": st.just("input_file"), "file_data": FILE}) | (
    st.fixed_dictionaries(
        {"type": st.just("file"), "file": st.fixed_dictionaries({"file_data": FILE})}
    )
)
CALLED = st.fixed_dictionaries({"name": TEXT, "arguments": TEXT})
CALL = st.fixed_dictionaries({"function": CALLED}) | st.fixed_dictionaries(
    {"custom": st.fixed_dictionaries({"name": TEXT, "input": TEXT})}
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "content": TEXT | st.none() | st.lists(PART, max_size=3),
    },
    optional={
        "name": TEXT,
        "tool_call_id": TEXT,
        "tool_calls": st.lists(CALL, max_size=2),
        "function_call": CALLED,
    },
)
SCREENSHOT = st.fixed_dictionaries({"type": st.just("computer_screenshot"), "image_url": URL})
ITEM = MESSAGE | st.fixed_dictionaries(
    {
        "type": st.just("function_call"),
        "name": TEXT,
        "arguments": TEXT,
        "output": TEXT | SCREENSHOT | st.lists(PART, max_size=2),
    }
)
PROPERTY = st.deferred(
    lambda: st.fixed_dictionaries(
        {"type": st.just("string") | st.just(["string", "null"])},
        optional={
            "description": TEXT,
            "enum": st.lists(TEXT | st.integers(), max_size=3),
            "properties": PROPERTIES,
            "items": st.fixed_dictionaries({"properties": PROPERTIES}),
        },
    )
)
PROPERTIES = st.dictionaries(ANY_TEXT, PROPERTY | st.booleans(), max_size=2)
FUNCTION = st.fixed_dictionaries(
    {"name": TEXT},
    optional={
        "description": TEXT,
        "parameters": st.fixed_dictionaries({"properties": PROPERTIES}),
    },
)
ITEM |= st.fixed_dictionaries(
    {"type": st.just("mcp_list_tools"), "tools": st.lists(FUNCTION, max_size=2)}
)
SCHEMA = st.fixed_dictionaries(
    {"name": TEXT, "schema": st.fixed_dictionaries({"properties": PROPERTIES})}
)
TOOL = st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTION}) | FUNCTION
TOKENS = st.lists(st.integers(0, 200_000), max_size=5)
INPUT = TEXT | st.lists(TEXT, max_size=4) | TOKENS | st.lists(TOKENS, max_size=3)

PROPER = (
    st.tuples(
        st.just("chat"),
        st.fixed_dictionaries(
            {"messages": st.lists(MESSAGE, max_size=4)},
            optional={
                "tools": st.lists(TOOL, max_size=2),
                "functions": st.lists(FUNCTION, max_size=2),
                "response_format": st.fixed_dictionaries({"json_schema": SCHEMA}),
            },
        ),
    )
    | st.tuples(
        st.just("responses"),
        st.fixed_dictionaries(
            {"input": TEXT | st.lists(ITEM, max_size=4)},
            optional={
                "instructions": TEXT,
                "tools": st.lists(TOOL, max_size=2),
                "text": st.fixed_dictionaries({"format": SCHEMA}),
            },
        ),
    )
    | st.tuples(st.just("completions"), st.fixed_dictionaries({"prompt": INPUT, "suffix": TEXT}))
    | st.tuples(st.just("embeddings"), st.fixed_dictionaries({"input": INPUT}))
    | st.tuples(
        st.just("moderations"), st.fixed_dictionaries({"input": INPUT | st.lists(PART, max_size=3)})
    )
    | st.tuples(st.just("images"), st.fixed_dictionaries({"prompt": TEXT}))
    | st.tuples(st.just("speech"), st.fixed_dictionaries({"input": TEXT, "instructions": TEXT}))
)

# Every name that is looked at, in places where it doesn't belong.
NAMES = st.sampled_from(
    [
        *("messages", "input", "prompt", "suffix", "instructions", "tools", "functions"),
        *("role", "name", "content", "tool_calls", "function_call", "function", "custom"),
        *("arguments", "output", "summary", "type", "text", "refusal", "image_url", "url"),
        *("detail", "input_audio", "data", "format", "parameters", "properties", "items"),
        *("enum", "description", "file", "file_data", "response_format", "json_schema"),
        *("format", "schema", "input_schema"),
    ]
)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(
        ["image_url", "input_image", "input_audio", "refusal", "file", "data:,", "data:x"]
    )
)
ANY_JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5)
)
ANY_BODY = st.dictionaries(NAMES, ANY_JSON, max_size=5)


def shortest_json_bytes(body: object) -> int:
    """Length of the shortest JSON text with this value, as a client could send it."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass"))


def exact_tokens(kind, body, model="gpt-4o"):
    """Counted in this process. Not inside trio."""
    return trio.run(partial(count, kind, body, model, body_bytes=shortest_json_bytes(body)))
