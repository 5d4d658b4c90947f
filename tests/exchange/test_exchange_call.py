"""Reading and checking requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from cutting import bytewise
from fakes import FakeRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest, BodyTooLarge
from proxy.exchange.call import MAX_MODEL_LENGTH, MAX_OUTPUT_TOKENS, SEARCHED_BYTES, Call, read_call
from proxy.exchange.operations import find
from proxy.exchange.ports import Headers
from proxy.exchange.upload import Upload
from proxy.tokens.output import DEFAULT_OUTPUT_TOKENS, Allowance

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
BY_PATH = "/openai/deployments/whisper/audio/transcriptions"
FORM_TYPE = (b"content-type", b"multipart/form-data; boundary=b")
MODEL_PART = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
FILE_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
FORM = FILE_HEAD + b"\x00" * 1000 + b"\r\n" + MODEL_PART + b"--b--\r\n"


async def read(
    body: bytes | list[bytes], path: str = CHAT, headers: Headers | None = None
) -> tuple[Call, FakeRequest]:
    target = find(path)
    assert target is not None
    pieces = body if isinstance(body, list) else [body]
    request = FakeRequest(path, pieces, headers=headers or [])
    return await read_call(request, target, Allowance()), request


async def refused(body: Any, path: str = CHAT, headers: Headers | None = None) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        await read(body if isinstance(body, bytes) else json.dumps(body).encode(), path, headers)
    json.loads(caught.value.body())
    return caught.value


async def test_a_request_is_read_whole_in_any_pieces_and_kept_as_it_came() -> None:
    body = json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": "hé"}]}).encode()
    for pieces in ([body], [body[:9], body[9:]], bytewise(body)):
        call, _ = await read(pieces)
        assert call.body == body
        assert call.document == json.loads(body)
        assert (call.model, call.stream, call.asks_usage) == ("gpt-4", False, False)
        assert call.demand.model == "gpt-4"
        assert 0 < call.demand.input_low <= call.demand.input_likely <= call.demand.input_high
        assert call.demand.output == DEFAULT_OUTPUT_TOKENS
        call.close()


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({}, False),
        ({"stream_options": None}, False),
        ({"stream_options": {}}, False),
        ({"stream_options": {"include_usage": False}}, False),
        ({"stream_options": {"include_usage": 1}}, False),
        ({"stream_options": "odd"}, False),
        ({"stream_options": {"include_usage": True}}, True),
    ],
)
async def test_whether_usage_is_wanted_is_known(fields: dict[str, Any], *, asks: bool) -> None:
    call, _ = await read(json.dumps({"model": "m", "stream": True, **fields}).encode())
    assert (call.stream, call.asks_usage) == (True, asks)


@pytest.mark.parametrize(
    ("path", "fields", "choices"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": 3}, 3),
        (CHAT, {"n": 0}, 1),
        (CHAT, {"n": True}, 1),
        (CHAT, {"n": "3"}, 1),
        (CHAT, {"prompt": ["a", "b"]}, 1),
        (COMPLETIONS, {"n": 2, "best_of": 5}, 2),
        (COMPLETIONS, {"prompt": "a"}, 1),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2}, 4),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (COMPLETIONS, {"prompt": [[1, 2], [3]]}, 2),
        (COMPLETIONS, {"prompt": []}, 1),
    ],
)
async def test_how_many_choices_a_stream_has_to_finish(
    path: str, fields: dict[str, Any], choices: int
) -> None:
    call, _ = await read(json.dumps({"model": "m", **fields}).encode(), path)
    assert call.choices == choices


@pytest.mark.parametrize(
    ("path", "fields", "output"),
    [
        (CHAT, {}, DEFAULT_OUTPUT_TOKENS),
        (CHAT, {"n": 8}, 8 * DEFAULT_OUTPUT_TOKENS),
        (CHAT, {"n": 8, "max_tokens": 100}, 800),
        (COMPLETIONS, {"prompt": ["a"] * 50, "max_tokens": 1000}, 50_000),
        (COMPLETIONS, {"prompt": ["a"] * 50}, 50 * DEFAULT_OUTPUT_TOKENS),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, 0),
    ],
)
async def test_output_is_reserved_for_each_answer_that_is_made(
    path: str, fields: dict[str, Any], output: int
) -> None:
    call, _ = await read(json.dumps({"model": "m", **fields}).encode(), path)
    assert call.demand.output == output


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"", None, "empty"),
        (b"{", None, "not valid JSON"),
        (b'{"model":"m"} x', None, "not valid JSON"),
        (b'{"model":"m","x":NaN}', None, "not valid JSON"),
        (b"\xef\xbb\xbf{}", None, "not valid JSON"),
        (b'{"model":"\xff"}', None, "not valid JSON"),
        (b'{"model":"\\ud800"}', None, "not valid JSON"),
        (b"[" * 100_000, None, "not valid JSON"),
        (b'{"max_tokens":' + b"9" * 5000 + b"}", None, "not valid JSON"),
        ([1], None, "an array"),
        ("x", None, "a string"),
        (7, None, "a number"),
        (None, None, "null"),
        (False, None, "a boolean"),
        ({}, "model", "must provide"),
        ({"model": None}, "model", "must provide"),
        ({"model": 7}, "model", "a number"),
        ({"model": 7.5}, "model", "a number"),
        ({"model": True}, "model", "a boolean"),
        ({"model": ["m"]}, "model", "an array"),
        ({"model": {"m": 1}}, "model", "an object"),
        ({"model": ""}, "model", "it has 0"),
        ({"model": "m" * (MAX_MODEL_LENGTH + 1)}, "model", "it has 257"),
        ({"model": "m", "stream": "true"}, "stream", "a string"),
        ({"model": "m", "stream": 1}, "stream", "a number"),
        ({"model": "m", "stream": []}, "stream", "an array"),
        ({"model": "m", "max_tokens": "5"}, "max_tokens", "a string"),
        ({"model": "m", "max_tokens": 5.0}, "max_tokens", "a number"),
        ({"model": "m", "max_tokens": True}, "max_tokens", "a boolean"),
        ({"model": "m", "max_tokens": {}}, "max_tokens", "an object"),
        ({"model": "m", "max_tokens": -1}, "max_tokens", "at least 0"),
        ({"model": "m", "max_tokens": -(10**4000)}, "max_tokens", "at least 0"),
        ({"model": "m", "max_completion_tokens": 0}, "max_completion_tokens", "at least 1"),
        ({"model": "m", "max_output_tokens": 0}, "max_output_tokens", "at least 1"),
        ({"model": "m", "max_output_tokens": []}, "max_output_tokens", "an array"),
    ],
)  # fmt: skip
async def test_what_would_mislead_the_proxy_is_refused_by_name(
    body: Any, param: str | None, says: str
) -> None:
    error = await refused(body)
    assert (error.status, error.param) == (400, param)
    assert says in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": None, "max_tokens": None},
        {"stream": False, "max_tokens": 0},
        {"messages": 7, "tools": "odd", "temperature": "hot", "input": {}},
        {"n": -(10**4000), "messages": [None, {"content": {"x": []}}]},
    ],
)
async def test_what_only_the_upstream_can_judge_passes(fields: dict[str, Any]) -> None:
    for path in (CHAT, COMPLETIONS, "/v1/responses", "/v1/embeddings", "/v1/images/generations"):
        await read(json.dumps({"model": "m", **fields}).encode(), path)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 10**4000},
        {"max_tokens": 7, "n": 10**4000},
        {"max_tokens": 10**12},
        {"n": 10**4000},
    ],
)
async def test_a_limit_beyond_all_limits_is_no_danger_to_arithmetic(fields: dict[str, Any]) -> None:
    call, _ = await read(json.dumps({"model": "m", **fields}).encode())
    assert call.demand.output == MAX_OUTPUT_TOKENS


async def test_the_paths_model_wins_over_the_bodys() -> None:
    path = "/openai/deployments/gpt-4/chat/completions"
    call, _ = await read(b'{"model":"another"}', path)
    assert call.model == "gpt-4"
    call, _ = await read(b'{"messages":[]}', path)
    assert call.model == "gpt-4"
    long = f"/openai/deployments/{'m' * 257}/chat/completions"
    assert (await refused({}, long)).param == "model"


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"GZIP", b"identity, gzip", b""])
async def test_a_compressed_body_is_refused(coding: bytes) -> None:
    for path in (CHAT, "/v1/audio/transcriptions"):
        error = await refused(b"\x1f\x8b", path, [(b"content-encoding", coding)])
        assert error.status == 415


async def test_an_identity_coding_is_none() -> None:
    call, _ = await read(b'{"model":"m"}', headers=[(b"content-encoding", b"Identity")])
    assert call.model == "m"


async def test_a_form_is_read_only_as_far_as_its_model() -> None:
    body = MODEL_PART + FILE_HEAD + b"\x00" * 100_000 + b"\r\n--b--\r\n"
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    length = (b"content-length", b"%d" % len(body))
    call, request = await read(pieces, "/v1/audio/transcriptions", [FORM_TYPE, length])
    assert call.model == "whisper-1"
    assert len(request._left) == len(pieces) - 1
    assert isinstance(call.body, Upload)
    assert call.body.length == len(body)
    assert call.form_model is not None
    assert body[call.form_model.start : call.form_model.end] == b"whisper-1"
    call.close()


@pytest.mark.parametrize(
    ("length", "known"),
    [(None, None), (b"2147", 2147), (b"x", None), (b"-1", None), (b"9" * 5000, None)],
)
async def test_an_upload_has_the_length_that_was_told(
    length: bytes | None, known: int | None
) -> None:
    headers = [FORM_TYPE] + ([] if length is None else [(b"content-length", length)])
    call, _ = await read(FORM, "/v1/images/edits", headers)
    assert isinstance(call.body, Upload)
    assert call.body.length == known
    call.close()


@pytest.mark.parametrize(
    ("body", "headers", "status", "param"),
    [
        (FORM.replace(b'"model"', b'"mode"'), [FORM_TYPE], 400, "model"),
        (FORM.replace(b"whisper-1", b""), [FORM_TYPE], 400, "model"),
        (FORM.replace(b"whisper-1", b"w" * 300), [FORM_TYPE], 400, "model"),
        (FORM.replace(b"whisper-1", b"\xff"), [FORM_TYPE], 400, "model"),
        (b"", [FORM_TYPE], 400, "model"),
        (b'{"model":"m"}', [(b"content-type", b"application/json")], 415, None),
        (FORM, [], 415, None),
    ],
)
async def test_a_form_without_a_usable_model_is_refused(
    body: bytes, headers: Headers, status: int, param: str | None
) -> None:
    error = await refused(body, "/v1/audio/translations", headers)
    assert (error.status, error.param) == (status, param)


async def test_where_the_path_names_the_model_the_form_need_not() -> None:
    call, _ = await read(FORM, BY_PATH, [FORM_TYPE])
    assert call.model == "whisper"
    assert call.form_model is not None  # it may have to be replaced
    assert call.form_model.value == "whisper-1"
    call.close()
    call, _ = await read(FILE_HEAD + b"\x00\r\n--b--\r\n", BY_PATH, [FORM_TYPE])
    assert (call.model, call.form_model) == ("whisper", None)
    call.close()


async def test_and_it_is_not_looked_for_for_long() -> None:
    pieces = [FILE_HEAD] + [b"\x00" * 65_536] * 40
    call, request = await read(pieces, BY_PATH, [FORM_TYPE])
    assert call.form_model is None
    assert isinstance(call.body, Upload)
    assert SEARCHED_BYTES <= call.body.received_bytes < SEARCHED_BYTES + 65_536
    assert request._left
    call.close()


async def test_the_size_limit_holds_for_both_kinds() -> None:
    for path, headers in ((CHAT, []), ("/v1/audio/transcriptions", [FORM_TYPE])):
        target = find(path)
        assert target is not None
        request = FakeRequest(path, [b"x" * 100] * 3, headers=headers, limit=250)
        with pytest.raises(BodyTooLarge):
            await read_call(request, target, Allowance())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
BODIES = st.binary(max_size=40) | st.dictionaries(
    st.sampled_from(
        ["model", "stream", "max_tokens", "n", "messages", "prompt", "input", "stream_options"]
    ),
    JSON | st.sampled_from(["gpt-4", True, 5]),
).map(lambda document: json.dumps(document).encode())


@settings(deadline=None)
@given(BODIES, st.sampled_from([CHAT, COMPLETIONS, "/v1/responses", "/v1/embeddings"]))
def test_every_body_is_read_or_refused(body: bytes, path: str) -> None:
    async def attempt() -> None:
        try:
            call, _ = await read(body, path)
        except BadRequest as error:
            json.loads(error.body())
        else:
            assert 0 <= call.demand.output <= MAX_OUTPUT_TOKENS
            assert call.choices >= 1

    trio.run(attempt)
