"""A request as the exchange sees it: read once, checked where a wrong value would mislead us.

What only the upstream can judge (messages, tools, sampling) passes unread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from actors.messages import Demand
from proxy.errors import BadRequest
from proxy.exchange.headers import header
from proxy.exchange.multipart import FormField, ModelSearch
from proxy.exchange.upload import Upload
from proxy.tokens.bounds import bounds
from proxy.tokens.output import choices, generated, output_limit

if TYPE_CHECKING:
    from proxy.bound.binding import Binding
    from proxy.exchange.operations import Operation, Target
    from proxy.exchange.ports import Headers, RequestReader
    from proxy.exchange.resources import Key
    from proxy.tokens.output import Allowance

MAX_MODEL_LENGTH: Final = 256
OUTPUT_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MAX_OUTPUT_TOKENS: Final = 10**9
"""More cannot be reserved anywhere; the arithmetic of capacity is spared larger numbers."""
SEARCHED_BYTES: Final = 1024 * 1024
"""How much of a form is read for its `model` if the path names the model already."""


@dataclass(slots=True)
class Call:
    """`document`: the parsed JSON body; empty for a form. `form_model`: where a form names it."""

    operation: Operation
    model: str
    body: bytes | Upload
    document: dict[str, Any]
    demand: Demand
    generated: int = 1
    """How many answers the upstream makes of it."""
    stream: bool = False
    asks_usage: bool = False
    """The client itself asked for the usage chunk of its stream."""
    form_model: FormField | None = None
    binding: Binding | None = None
    """To whom what it names binds it."""
    unopened: tuple[Key, ...] = ()
    """Encrypted items in it, of which nobody knows who can read them."""

    @property
    def choices(self) -> int:
        """How many choices its stream has to finish."""
        return choices(self.operation.estimate, self.document)

    def close(self) -> None:
        if isinstance(self.body, Upload):
            self.body.close()


async def read_call(request: RequestReader, target: Target, allowance: Allowance) -> Call:
    """Reads and checks the request; an upload is read only as far as its `model`.

    Errors: `BadRequest` naming the field, `BodyTooLarge`, `RequestTimeout`.
    """
    operation = target.operation
    assert operation is not None
    expect_plain(request)
    if operation.body == "multipart":
        return await _read_form(request, operation, target.model, allowance)
    body = await _read_all(request)
    return json_call(operation, target.model, body, _parse(body), allowance)


def json_call(
    operation: Operation,
    path_model: str | None,
    body: bytes,
    document: dict[str, Any],
    allowance: Allowance,
) -> Call:
    """What a JSON request asks for. `path_model`: named by its path. Errors: as `read_call`."""
    model = _model(document.get("model") if path_model is None else path_model)
    stream = _flag(document, "stream")
    _check_output_limits(document)
    options = document.get("stream_options")
    low, likely, high = bounds(operation.estimate, document, len(body), model)
    answers = generated(operation.estimate, document)
    each = output_limit(operation.estimate, document)
    output = answers * (allowance.expected(model) if each is None else each)
    return Call(
        operation,
        model,
        body,
        document,
        Demand(model, low, likely, high, min(output, MAX_OUTPUT_TOKENS)),
        answers,
        stream=stream,
        asks_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


async def read_json(request: RequestReader) -> tuple[bytes, dict[str, Any]]:
    """The body and the JSON object that it is; an empty body is as good as an empty object.

    Errors: as `read_call`.
    """
    body = await _read_all(request)
    return body, _parse(body) if body else {}


def expect_plain(request: RequestReader) -> None:
    """Errors: `BadRequest` for a body that is compressed."""
    encoding = header(request.headers, b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise BadRequest(
            "The request body must not be compressed: send it without content-encoding.",
            status=415,
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
        if value is None:
            continue
        if type(value) is not int:
            raise BadRequest(f"`{name}` must be a whole number, not {_named(value)}.", param=name)
        # A legacy completion of 0 tokens is the way to have a prompt scored.
        least = 0 if name == "max_tokens" else 1
        if value < least:
            raise BadRequest(f"`{name}` must be at least {least}.", param=name)


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
    upload = Upload(request, content_length(request.headers))
    try:
        field = await _find_model(request, upload, optional=path_model is not None)
        if field is None and path_model is None:
            raise BadRequest(
                "You must provide a `model` field in the form.", param="model", code="missing_model"
            )
        named = path_model if path_model is not None else field and field.value
        model = _model(named)
    except BaseException:
        upload.close()
        raise
    # What a form costs in tokens is not known before its answer, and mostly not after it.
    demand = Demand(model, 0, 0, 0, allowance.expected(model))
    return Call(operation, model, upload, {}, demand, form_model=field)


async def _find_model(
    request: RequestReader, upload: Upload, *, optional: bool
) -> FormField | None:
    """Receives as much of `upload` as it takes; if it is `optional`, not more than a bound."""
    search = ModelSearch(header(request.headers, b"content-type") or b"")
    field = None
    while field is None and not (optional and upload.received_bytes >= SEARCHED_BYTES):
        piece = await upload.receive()
        if not piece:
            break
        field = search.feed(piece)
    return field


def content_length(headers: Headers) -> int | None:
    """What the client says; None if it does not."""
    value = header(headers, b"content-length")
    return int(value) if value is not None and value.isdigit() and len(value) < 19 else None
