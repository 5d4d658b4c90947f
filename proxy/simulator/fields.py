"""Reading a request body: JSON or a form, and the fields in it, strictly typed."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeAlias

from pydantic_core import from_json
from werkzeug.formparser import MultiPartParser
from werkzeug.http import parse_options_header

from proxy.simulator import catalogue

Body: TypeAlias = dict[str, Any]
"""The fields of a body by name; an uploaded file is an `Upload`."""


class Form(Body):
    """The fields of a form: everything in it is text or an `Upload`."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in a form."""

    filename: str
    content: bytes


def read_body(content_type: bytes, body: bytes) -> Body:
    """The fields of a JSON object or a multipart form. Errors: `ApiError` 400."""
    if content_type[:19].lower() == b"multipart/form-data":
        return _read_form(content_type.decode("latin-1"), body)
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise catalogue.malformed_body() from None
    if type(fields) is not dict:
        raise catalogue.malformed_body()
    return fields


def _read_form(content_type: str, body: bytes) -> Body:
    boundary = parse_options_header(content_type)[1].get("boundary", "")
    parser = MultiPartParser(stream_factory=lambda *_, **__: BytesIO(), max_form_parts=1000)
    try:
        form, files = parser.parse(BytesIO(body), boundary.encode("latin-1"), len(body))
    except ValueError:
        raise catalogue.malformed_body() from None
    fields = Form(form.items())
    for name, file in files.items():
        fields[name] = Upload(file.filename or "", file.stream.read())
    return fields


def integer(body: Body, name: str, least: int = 1, most: int = 10**9) -> int | None:
    """A whole number, None when absent or null. Errors: `ApiError` 400."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(body, Form) and type(value) is str and value.isascii() and value.isdigit():
        value = int(value[:12])
    if type(value) is not int:
        raise catalogue.wrong_type(name, "an integer")
    if value < least:
        raise catalogue.below_minimum(name, least, value)
    if value > most:
        raise catalogue.wrong_value(name, f"at most {most}")
    return value


def flag(body: Body, name: str) -> bool:
    """A boolean, false when absent or null. Errors: `ApiError` 400."""
    value = body.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise catalogue.wrong_type(name, "a boolean")
    return value


def text(body: Body, name: str) -> str | None:
    """A text, None when absent or null. Errors: `ApiError` 400."""
    value = body.get(name)
    if value is not None and type(value) is not str:
        raise catalogue.wrong_type(name, "a string")
    return value


def required_text(body: Body, name: str) -> str:
    """A text that must be there. Errors: `ApiError` 400."""
    value = text(body, name)
    if value is None:
        raise catalogue.missing(name)
    return value


def upload(body: Body, name: str) -> Upload:
    """A file that must be there. Errors: `ApiError` 400."""
    value = body.get(name)
    if not isinstance(value, Upload):
        raise catalogue.missing(name)
    return value
