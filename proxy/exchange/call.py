"""A request as the exchange sees it: read once, checked where a wrong value would mislead us.

What only the upstream can judge (messages, tools, sampling) passes unread.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from actors.messages import Demand
from proxy.errors import BadRequest
from proxy.exchange.headers import header
from proxy.exchange.multipart import FormField, ModelSearch
from proxy.exchange.upload import Upload
from proxy.tokens.bounds import bounds
from proxy.tokens.output import output_limit

if TYPE_CHECKING:
    from proxy.exchange.operations import Operation, Target
    from proxy.exchange.ports import Headers, RequestReader
    from proxy.tokens.output import Allowance

MAX_MODEL_LENGTH: Final = 256
OUTPUT_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_MODEL_VALUE: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.){0,512}")')
_OBJECT_START: Final = re.compile(rb"\s*\{")


@dataclass(slots=True)
class Call:
    """`document`: the parsed JSON body; empty for a form. `form_model`: where a form names it."""

    operation: Operation
    model: str
    body: bytes | Upload
    document: dict[str, Any]
    demand: Demand
    stream: bool = False
    asks_usage: bool = False
    """The client itself asked for the usage chunk of its stream."""
    form_model: FormField | None = None

    def close(self) -> None:
        if isinstance(self.body, Upload):
            self.body.close()


async def read_call(request: RequestReader, target: Target, allowance: Allowance) -> Call:
    """Reads and checks the request; an upload is read only as far as its `model`.

    Errors: `BadRequest` naming the field, `BodyTooLarge`, `RequestTimeout`.
    """
    operation = target.operation
    assert operation is not None
    encoding = header(request.headers, b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise BadRequest(
            "The request body must not be compressed: send it without content-encoding.",
            status=415,
        )
    if operation.body == "multipart":
        return await _read_form(request, operation, target.model, allowance)
    body = await _read_all(request)
    document = _parse(body)
    model = target.model or _model(document.get("model"))
    stream = _flag(document, "stream")
    _check_output_limits(document)
    options = document.get("stream_options")
    low, likely, high = bounds(operation.estimate, document, len(body), model)
    output = output_limit(operation.estimate, document)
    return Call(
        operation,
        model,
        body,
        document,
        Demand(model, low, likely, high, allowance.expected(model) if output is None else output),
        stream=stream,
        asks_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


async def _read_all(request: RequestReader) -> bytes:
    first = await request.read_chunk()
    if not first:
        return b""
    piece = await request.read_chunk()
    if not piece:
        return first
    pieces = [first, piece]
    while piece := await request.read_chunk():
        pieces.append(piece)
    return b"".join(pieces)


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise BadRequest("The request body is empty; a JSON object is needed.")
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise BadRequest(f"The request body must be a JSON object, not {_named(document)}.")
    return document


def _model(value: object) -> str:
    if value is None:
        raise BadRequest("You must provide a `model`.", param="model", code="missing_model")
    if not isinstance(value, str):
        raise BadRequest(f"`model` must be a string, not {_named(value)}.", param="model")
    if not 0 < len(value) <= MAX_MODEL_LENGTH:
        raise BadRequest(
            f"`model` must have 1 to {MAX_MODEL_LENGTH} characters; it has {len(value)}.",
            param="model",
        )
    return value


def _flag(document: dict[str, Any], name: str) -> bool:
    value = document.get(name)
    if value is None or value is False:
        return False
    if value is not True:
        raise BadRequest(f"`{name}` must be true or false, not {_named(value)}.", param=name)
    return True


def _check_output_limits(document: dict[str, Any]) -> None:
    for name in OUTPUT_LIMITS:
        value = document.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise BadRequest(
                f"`{name}` must be a whole number of at least 1, not "
                f"{value if type(value) is int else _named(value)}.",
                param=name,
            )


def _named(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case _:
            return "an object"


async def _read_form(
    request: RequestReader, operation: Operation, path_model: str | None, allowance: Allowance
) -> Call:
    headers = request.headers
    upload = Upload(request, _content_length(headers))
    try:
        field = None
        if path_model is None:
            search = ModelSearch(header(headers, b"content-type") or b"")
            while field is None:
                piece = await upload.receive()
                if not piece:
                    raise BadRequest(
                        "You must provide a `model` field in the form.",
                        param="model",
                        code="missing_model",
                    )
                field = search.feed(piece)
    except BaseException:
        upload.close()
        raise
    model = path_model if field is None else field.value
    assert model is not None
    # What a form costs in tokens is not known before its answer, and mostly not after it.
    demand = Demand(model, 0, 0, 0, allowance.expected(model))
    return Call(operation, model, upload, {}, demand, form_model=field)


def _content_length(headers: Headers) -> int | None:
    value = header(headers, b"content-length")
    return None if value is None else int(value)


def with_model(body: bytes, document: dict[str, Any], name: str) -> bytes:
    """`body` with its top-level `model` changed to `name`, all else byte for byte if possible.

    If the text `"model": "…"` stands in the body more than once, which one is the top-level one
    is not worth finding out: the document is written anew.
    """
    found = _MODEL_VALUE.findall(body)
    if len(found) == 1 and type(document.get("model")) is str:
        match = _MODEL_VALUE.search(body)
        assert match is not None
        return body[: match.start(1)] + json.dumps(name).encode() + body[match.end(1) :]
    return _dump({**document, "model": name})


def with_usage_asked(body: bytes, document: dict[str, Any]) -> bytes:
    """`body` with `stream_options.include_usage` set, all else byte for byte if possible."""
    options = document.get("stream_options")
    if "stream_options" not in document:
        match = _OBJECT_START.match(body)
        assert match is not None
        return (
            body[: match.end()] + b'"stream_options":{"include_usage":true},' + body[match.end() :]
        )
    asked = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return _dump({**document, "stream_options": asked})


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
