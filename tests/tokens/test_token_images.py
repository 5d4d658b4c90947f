import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_bodies import DETAIL, MODELS, URL, data_url

from proxy.tokens.image_size import image_size
from proxy.tokens.images import image_tokens


def url_of(content, media_type="image/png"):
    return f"data:{media_type};base64," + base64.b64encode(content).decode()


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(width, height, *before, frame=0xC0):
    head = struct.pack(">BHHB", 8, height, width, 3)
    return b"\xff\xd8" + b"".join(before) + segment(frame, head) + bytes(9)


def webp(chunk, content):
    return b"RIFF" + bytes(4) + b"WEBP" + chunk + bytes(4) + content.ljust(20, b"\0")


EXIF = segment(0xE1, b"Exif\0\0" + bytes(60_000))
TABLES = segment(0xC4, b"\xff\xc0" * 20)
GIF = b"GIF89a" + struct.pack("<HH", 640, 480) + bytes(20)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (GIF, (640, 480)),
        (GIF[:10], (640, 480)),
        (jpeg(1920, 1080), (1920, 1080)),
        (jpeg(1920, 1080, frame=0xC2), (1920, 1080)),
        (jpeg(4000, 3000, EXIF, EXIF, EXIF, TABLES), (4000, 3000)),
        (webp(b"VP8X", bytes(4) + b"\x7f\x07\x00\x37\x04\x00"), (1920, 1080)),
        (webp(b"VP8L", b"\x2f" + (1919 | 1079 << 14).to_bytes(4, "little")), (1920, 1080)),
        (webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 800, 600)), (800, 600)),
    ],
    ids=["gif", "gif-cut", "jpeg", "progressive", "exif", "webp-x", "webp-lossless", "webp-lossy"],
)
def test_the_size_is_read_from_the_header(content, size):
    assert image_size(url_of(content)) == size
    assert image_size(url_of(content, "image/anything")) == size


def test_the_size_of_a_png():
    assert image_size(data_url(12_345, 6)) == (12_345, 6)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.com/image.png",
        "data:",
        "data:,",
        "data:image/png,plain",
        "data:image/png;base64,",
        "data:image/png;base64,iVBORw0KGgo",
        "data:image/png;base64,%%%%",
        "data:image/png;base64,é",
        "data:" + "x" * 1000 + ";base64,iVBORw0KGgo=",
        "DATA:IMAGE/PNG;BASE64,AAAA",
        url_of(jpeg(10, 10, *([segment(0xE0, b"")] * 100))),
        url_of(b"\xff\xd8\xff\xe1\x00\x00" + bytes(50)),
        url_of(b"\xff\xd8\xff\xe0\xff\xff"),
        url_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        data_url(0, 100),
    ],
)
def test_no_size_can_be_read_from_anything_else(url):
    assert image_size(url) is None


def test_only_the_header_is_decoded():
    cut = data_url(10, 20) + "!" * 1000 + "é" * 1000
    assert image_size(cut) == (10, 20)


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF"]))
def test_any_bytes_have_a_positive_size_or_none(content, start):
    size = image_size(url_of(start + content))
    assert size is None or min(size) > 0


# Worked examples of "Images and vision", developers.openai.com, and of the Azure OpenAI overview.
@pytest.mark.parametrize(
    ("model", "width", "height", "detail", "published"),
    [
        ("gpt-4o", 1024, 1024, "high", 765),
        ("gpt-4o", 2048, 4096, "high", 1105),
        ("gpt-4o", 4096, 8192, "low", 85),
        ("gpt-4o", 512, 512, None, 255),
        ("gpt-4o-mini", 512, 512, "high", 2833 + 5667),
        ("gpt-4.1-mini-2025-04-14", 1024, 1024, None, 1659),
        ("gpt-5-mini", 1800, 2400, "auto", 2353),
    ],
)
def test_images_cost_what_is_published(model, width, height, detail, published):
    assert image_tokens(model, data_url(width, height), detail) == published


def test_models_are_priced_by_the_longest_name_that_fits():
    url = data_url(512, 512)
    assert image_tokens("gpt-5-2025-08-07", url, "high") == 70 + 140
    assert image_tokens("gpt-5.1", url, "high") == 70 + 140
    assert image_tokens("gpt-5.4-nano", url, "high") == 630
    assert image_tokens("gpt-5.4", url, "high") == 308
    assert image_tokens("our-deployment", url, "high") == 85 + 170


@given(model=MODELS, detail=DETAIL, width=st.integers(1, 20_000), height=st.integers(1, 20_000))
def test_an_image_of_unknown_size_costs_the_most_that_one_can_cost(model, detail, width, height):
    unknown = image_tokens(model, "https://example.com/image.png", detail)
    assert 0 < image_tokens(model, data_url(width, height), detail) <= unknown


@given(model=MODELS, detail=DETAIL, url=URL)
def test_every_image_costs_something(model, detail, url):
    assert image_tokens(model, url, detail) > 0
    assert image_tokens(model, {"not": "a url"}, detail) > 0


def test_the_patch_limit_depends_on_the_detail_level():
    url = "https://example.com/image.png"
    assert image_tokens("gpt-5.4", url, "high") == 3000
    assert image_tokens("gpt-5.4", url, "original") == 12_000
    assert image_tokens("gpt-5.6", url, None) == 12_000
