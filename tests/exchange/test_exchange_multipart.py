"""Finding `model` in forms, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from cutting import bytewise, cut
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.exchange.multipart import MAX_HEAD_BYTES, FormField, ModelSearch

B = b"----WebKitFormBoundaryX"


def part(head: bytes, content: bytes, boundary: bytes = B) -> bytes:
    return b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, content)


def field(name: bytes, content: bytes, boundary: bytes = B) -> bytes:
    return part(b'Content-Disposition: form-data; name="%b"' % name, content, boundary)


def file(content: bytes, filename: bytes = b"a.mp3") -> bytes:
    head = b'Content-Disposition: form-data; name="file"; filename="%b"\r\nContent-Type: audio/mpeg'
    return part(head % filename, content)


def end(boundary: bytes = B) -> bytes:
    return b"--" + boundary + b"--\r\n"


def search(pieces: Iterable[bytes], boundary: bytes = B) -> FormField | None:
    found = None
    searching = ModelSearch(b"multipart/form-data; boundary=" + boundary)
    for piece in pieces:
        found = found or searching.feed(piece)
    return found


@pytest.mark.parametrize(
    "body",
    [
        field(b"model", b"whisper") + file(b"\x00\xff") + end(),
        file(b"\x00\xff" * 10_000) + field(b"model", b"whisper") + end(),
        file(b"") + field(b"language", b"de") + field(b"model", b"whisper") + end()[:-4],
        b"a preamble\r\n" + field(b"model", b"whisper") + end(),
        part(b"content-disposition:form-data;name=model", b"whisper") + end(),
        part(b"CONTENT-DISPOSITION: Form-Data; NAME=model ", b"whisper") + end(),
        part(b'Content-Disposition: form-data; x="a;name=b"; name="model"', b"whisper") + end(),
        part(b'Content-Disposition: form-data; name="model"; x=1', b"whisper") + end(),
        part(b'X-A: b\r\nContent-Disposition: form-data; name="model"\r\nX-C: d', b"whisper")
        + end(),
        b"--" + B + b" \t \r\n" + field(b"model", b"whisper")[len(B) + 4 :] + end(),
        # Two of them: the first one counts
        field(b"model", b"whisper") + field(b"model", b"other") + end(),
        # Parts without content, or even without a blank line
        b"--%b\r\nContent-Disposition: form-data; name=x\r\n\r\n" % B
        + field(b"model", b"whisper") + end(),
        b"--%b\r\nnonsense\r\n" % B + field(b"model", b"whisper") + end(),
    ],
)  # fmt: skip
def test_the_field_is_found_wherever_it_stands_and_however_it_is_cut(body: bytes) -> None:
    start = body.index(b"whisper")
    expected = FormField("whisper", start, start + 7)
    assert search([body]) == expected
    assert search(bytewise(body)) == expected


FAKE = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nevil'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        file(b"\x00") + end(),
        field(b"models", b"whisper") + field(b"submodel", b"x") + end(),
        field(b"name", b"model") + end(),
        # Content of a file that looks like a field, and is none
        file(FAKE) + end(),
        file(b"x--" + B + FAKE) + end(),
        file(b"\n--" + B + FAKE) + end(),
        file(b"\r--" + B + FAKE) + end(),
        file(b"\r\n--" + B.swapcase() + FAKE) + end(),
        file(b"\r\n--" + B[:-1] + FAKE) + end(),
        file(b"\r\n--" + B + b"Y" + FAKE) + end(),
        file(b"evil", filename=b"a; name=model") + end(),
        file(b"evil", filename=b'a\\"; name=model; x=\\"') + end(),
        part(b'Content-Disposition: attachment; name="model"', b"evil") + end(),
        part(b'X-Content-Disposition: form-data; name="model"', b"evil") + end(),
        # After the end of the form
        file(b"x") + end() + field(b"model", b"evil") + end(),
        file(b"x") + b"--" + B + b"--" + FAKE + b"\r\n" + end(),
        # Cut off
        field(b"model", b"whisp"),
        field(b"model", b"whisper")[:-1],
    ],
)
def test_nothing_else_is_taken_for_it(body: bytes) -> None:
    assert search([body]) is None
    assert search(bytewise(body)) is None


def test_a_line_that_only_begins_like_the_boundary_hides_nothing() -> None:
    body = file(b"\r\n--" + B + b"Y" + FAKE) + field(b"model", b"whisper") + end()
    start = body.index(b"whisper")
    for pieces in ([body], bytewise(body)):
        assert search(pieces) == FormField("whisper", start, start + 7)


@pytest.mark.parametrize("value", [b"\xff", b"a\r\nb", b"a\x00b", b"x" * 1025, b"\xef\xbf\xbd"])
def test_a_value_that_is_no_name_is_refused(value: bytes) -> None:
    body = field(b"model", value) + end()
    for pieces in ([body], bytewise(body)):
        with pytest.raises(BadRequest) as refusal:
            search(pieces)
        assert refusal.value.param == "model"


@pytest.mark.parametrize("value", [b"", b"x" * 1024, "modèle".encode(), b"org/model name:1"])
def test_a_value_is_taken_as_it_is(value: bytes) -> None:
    found = search([field(b"model", value) + end()])
    assert found is not None
    assert found.value == value.decode()
    assert found.end - found.start == len(value)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b"Multipart/Form-Data;BOUNDARY=abc", b"abc"),
        (b'multipart/form-data; boundary="a b:c"', b"a b:c"),
        (b'multipart/form-data; charset=utf-8; boundary="abc"; x=y', b"abc"),
        (b'multipart/form-data; x="; boundary=no"; boundary=abc ;', b"abc"),
        (b"multipart/form-data; boundary=a.*c", b"a.*c"),
    ],
)
def test_the_boundary_is_read_quoted_or_not(content_type: bytes, boundary: bytes) -> None:
    body = field(b"model", b"whisper", boundary) + end(boundary)
    assert ModelSearch(content_type).feed(body) is not None
    assert ModelSearch(content_type).feed(body.replace(boundary, b"other")) is None


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"application/json",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/mixed; boundary=abc",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b'multipart/form-data; boundary="a\r\nb"',
        b"multipart/form-data; " + b"; " * 10_000,
        b"\xff" * 1000,
    ],
)
def test_what_is_no_form_is_refused(content_type: bytes) -> None:
    with pytest.raises(BadRequest, match="multipart/form-data") as refusal:
        ModelSearch(content_type)
    assert refusal.value.status == 415
    refusal.value.body()


CONTENTS = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b"--", B, B[:5], FAKE, b"x", b"\x00", b"-", b" ", b"\r\n\r\n"]
    ),
    max_size=12,
).map(b"".join)


@settings(deadline=None)
@given(
    st.lists(CONTENTS, max_size=3), CONTENTS, st.lists(st.integers(0), max_size=15), st.booleans()
)
@example([b""], b"", [], True)
def test_among_files_of_any_content_only_the_field_is_found(
    before: list[bytes], after: bytes, places: list[int], present: bool
) -> None:
    # The one thing that a content must not hold
    files = [file(content) for content in before if b"\r\n--" + B not in b"\r\n" + content]
    body = b"".join(files)
    expected = None
    if present:
        body += field(b"model", b"whisper")
        start = len(body) - 9
        expected = FormField("whisper", start, start + 7)
    if b"\r\n--" + B not in b"\r\n" + after:
        body += file(after)
    body += end()
    assert search([body]) == expected
    assert search(cut(body, places)) == expected


@settings(deadline=None)
@given(CONTENTS | st.binary(max_size=100), st.lists(st.integers(0), max_size=15))
def test_no_body_raises_anything_but_a_refusal_and_pieces_make_no_difference(
    body: bytes, places: list[int]
) -> None:
    def outcome(pieces: Iterable[bytes]) -> object:
        try:
            return search(pieces)
        except BadRequest as refusal:
            return refusal.message

    assert outcome(cut(body, places)) == outcome([body])


@pytest.mark.parametrize(
    "body",
    [
        (b"\r\n--" + B + b"\r\n") * 100_000,
        (b"--" + B + b"\r\n\r\n\r\n") * 100_000,
        b"\r\n--" * 500_000,
        (b"\r\n--" + B + b"\r\n" + b"x" * (MAX_HEAD_BYTES - 5)) * 700,
        b"\r\n--" + B + b"\r\ncontent-disposition: form-data" + b"; a=b" * 500_000,
        b"\r\n--" + B + b'\r\ncontent-disposition: form-data; a="' + b"\\" * 3_000_000,
    ],
    ids=range(6),
)
def test_a_hostile_body_costs_no_more_than_its_bytes(body: bytes) -> None:
    started = time.process_time()
    assert search([body[at : at + 65_536] for at in range(0, len(body), 65_536)]) is None
    assert time.process_time() - started < 5
