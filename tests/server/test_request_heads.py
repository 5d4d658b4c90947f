"""Reading a request's head: what is taken, and everything ambiguous that is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.server.head import Head, HeadReader, check_beginning, parse_head, without_upgrade
from proxy.server.limits import Limits

LIMITS = Limits()


def parsed(*lines: bytes, limits: Limits = LIMITS):
    return parse_head(b"\r\n".join(lines) + b"\r\n\r\n", limits)


def refusal(*lines: bytes, limits: Limits = LIMITS) -> int:
    with pytest.raises(ProxyError) as caught:
        parsed(*lines, limits=limits)
    return caught.value.status


def test_a_plain_request_is_delivered_as_sent():
    head = parsed(
        b"POST /v1/chat/completions?api-version=2024-10-21&x HTTP/1.1",
        b"Host: example.com:3010",
        b"X-Twice: one",
        b"Content-Type:application/json",
        b"x-twice:\t two words \t",
        b"X-Empty:",
        b"X-Latin: caf\xe9",
        b"Content-Length: 12",
    )
    assert (head.method, head.path) == ("POST", "/v1/chat/completions")
    assert head.query == b"api-version=2024-10-21&x"
    assert head.headers == [
        (b"host", b"example.com:3010"),
        (b"x-twice", b"one"),
        (b"content-type", b"application/json"),
        (b"x-twice", b"two words"),
        (b"x-empty", b""),
        (b"x-latin", b"caf\xe9"),
        (b"content-length", b"12"),
    ]
    assert (head.content_length, head.chunked) == (12, False)
    assert head.keep_alive
    assert not head.expects_continue
    assert not head.websocket


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/v1/a%20b", "/v1/a b", b""),
        (b"/v1/caf%C3%A9", "/v1/café", b""),
        (b"/v1/a%2Fb", "/v1/a/b", b""),
        (b"/v1/a?", "/v1/a", b""),
        (b"/v1/a?b=%0a?c", "/v1/a", b"b=%0a?c"),
        (b"/v1/a?include[]=x|y", "/v1/a", b"include[]=x|y"),
        (b"//v1/../a", "//v1/../a", b""),
        (b"http://x/v1/a?b", "/v1/a", b"b"),
        (b"HTTPS://X", "/", b""),
        (b"http://x?b", "/", b"b"),
    ],
)
def test_targets(target: bytes, path: str, query: bytes):
    head = parsed(b"GET " + target + b" HTTP/1.1", b"host: x")
    assert (head.path, head.query) == (path, query)


def test_the_asterisk_form_is_for_options_only():
    assert parsed(b"OPTIONS * HTTP/1.1", b"host: x").path == "*"
    assert refusal(b"GET * HTTP/1.1", b"host: x") == 400


@pytest.mark.parametrize(
    "line",
    [
        b"GET  /v1/a HTTP/1.1",
        b"GET /v1/a  HTTP/1.1",
        b" GET /v1/a HTTP/1.1",
        b"GET\t/v1/a HTTP/1.1",
        b"GET /v1/a\tHTTP/1.1",
        b"GET /v1/a HTTP/1.1 ",
        b"GET /v1/a HTTP/1.2",
        b"GET /v1/a HTTP/2.0",
        b"GET /v1/a HTTP/0.9",
        b"GET /v1/a HTTP/1.1x",
        b"GET /v1/a http/1.1",
        b"GET /v1/a RTSP/1.0",
        b"GET /v1/a",
        b"get /v1/a HTTP/1.1",
        b"FOO /v1/a HTTP/1.1",
        b"G\xc3\x89T /v1/a HTTP/1.1",
        b"GET v1/a HTTP/1.1",
        b"GET /v1/a b HTTP/1.1",
        b"GET /v1/a#b HTTP/1.1",
        b"GET /v1/a\\b HTTP/1.1",
        b"GET /v1/a?b#c HTTP/1.1",
        b"GET /v1/a\x00 HTTP/1.1",
        b"GET /v1/a\x1f HTTP/1.1",
        b"GET /v1/a\x7f HTTP/1.1",
        b"GET /v1/\xc3\xa9 HTTP/1.1",
        b"GET /v1/a%00 HTTP/1.1",
        b"GET /v1/a%0d%0ab HTTP/1.1",
        b"GET /v1/a%7f HTTP/1.1",
        b"GET /v1/a%zz HTTP/1.1",
        b"GET /v1/a%4 HTTP/1.1",
        b"GET /v1/a%ff HTTP/1.1",
        b"GET http://user@x/v1/a HTTP/1.1",
        b"GET ftp://x/v1/a HTTP/1.1",
        b"GET http:///v1/a HTTP/1.1",
        b"GET http://y/v1/a HTTP/1.1",
        b"GET ?a HTTP/1.1",
        b"GET  HTTP/1.1",
        b"CONNECT x:443 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"",
    ],
)
def test_request_lines_that_are_refused(line: bytes):
    assert refusal(line, b"host: x") == 400


@pytest.mark.parametrize(
    "headers",
    [
        # where does the body end?
        [b"content-length: 3", b"content-length: 3"],
        [b"content-length: 3", b"content-length: 4"],
        [b"content-length: 3, 3"],
        [b"content-length: +3"],
        [b"content-length: -3"],
        [b"content-length: 0x3"],
        [b"content-length: 3 3"],
        [b"content-length: 3;a"],
        [b"content-length: 03"],
        [b"content-length: \xb2"],
        [b"content-length: 1_0"],
        [b"content-length: "],
        [b"content-length: 18446744073709551616"],
        [b"content-length: 9999999999999999999"],
        [b"content-length: 3", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked", b"content-length: 3"],
        [b"transfer-encoding: chunked", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked, chunked"],
        [b"transfer-encoding: gzip, chunked"],
        [b"transfer-encoding: gzip", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked, gzip"],
        [b"transfer-encoding: identity"],
        [b"transfer-encoding: xchunked"],
        [b"transfer-encoding: chunked;a=b"],
        [b"transfer-encoding: chun\x00ked"],
        [b"transfer-encoding: \x0bchunked"],
        [b'transfer-encoding: "chunked"'],
        [b"transfer-encoding:"],
        # where does a header end?
        [b"a: b\nc: d"],
        [b"a: b\rc: d"],
        [b"a: b\r"],
        [b"a: b\x00c"],
        [b"a: b\x08"],
        [b"a: b\x7f"],
        [b"a: b", b" folded"],
        [b"a: b", b"\tfolded"],
        [b"a:", b" folded"],
        [b" a: b"],
        [b"a : b"],
        [b"a\t: b"],
        [b"content-length : 3"],
        [b"transfer-encoding : chunked"],
        [b": b"],
        [b"a"],
        [b"a(b): c"],
        [b"a\xe9: c"],
        [b"a\x00: c"],
        [b"\x0ba: c"],
        # which host?
        [b"host: y"],
        [b"host: x"],
    ],
)
def test_headers_that_are_refused(headers: list[bytes]):
    assert refusal(b"POST /v1/a HTTP/1.1", b"host: x", *headers) == 400


@pytest.mark.parametrize(
    "host", [b"", b"x", b"x:80", b"[::1]:80", b"10.0.0.1", b"a-b.example", b"x:"]
)
def test_hosts(host: bytes):
    assert parsed(b"GET /v1/a HTTP/1.1", b"host: " + host).headers == [(b"host", host)]


@pytest.mark.parametrize(
    "host", [b"a b", b"a,b", b"user@x", b"x/y", b"http://x", b"x:a", b"x:123456", b"[x]", b"x?y"]
)
def test_hosts_that_are_refused(host: bytes):
    assert refusal(b"GET /v1/a HTTP/1.1", b"host: " + host) == 400


def test_the_host_is_required_since_http_1_1():
    assert refusal(b"GET /v1/a HTTP/1.1") == 400
    assert not parsed(b"GET /v1/a HTTP/1.0").http_1_1


def test_http_1_0_has_no_chunked_requests():
    assert refusal(b"POST /v1/a HTTP/1.0", b"transfer-encoding: chunked") == 400


def test_chunked():
    head = parsed(b"POST /v1/a HTTP/1.1", b"host: x", b"Transfer-Encoding:  Chunked ")
    assert (head.chunked, head.content_length) == (True, 0)


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"connection: close"], False),
        (b"1.1", [b"connection: foo, Close"], False),
        (b"1.1", [b"connection: keep-alive", b"connection: close"], False),
        (b"1.0", [], False),
        (b"1.0", [b"connection: Keep-Alive"], True),
        (b"1.0", [b"connection: keep-alive, close"], False),
    ],
)
def test_keep_alive(version: bytes, connection: list[bytes], keep_alive: bool):
    head = parsed(b"GET /v1/a HTTP/" + version, b"host: x", *connection)
    assert head.keep_alive is keep_alive


def test_expectations():
    assert parsed(b"POST / HTTP/1.1", b"host: x", b"expect: 100-Continue").expects_continue
    assert not parsed(b"POST / HTTP/1.0", b"expect: 100-continue").expects_continue
    assert refusal(b"POST / HTTP/1.1", b"host: x", b"expect: 200-ok") == 417
    assert refusal(b"POST / HTTP/1.1", b"host: x", *[b"expect: 100-continue"] * 2) == 417


def test_upgrades():
    websocket = [b"connection: keep-alive, Upgrade", b"upgrade: WebSocket"]
    assert parsed(b"GET / HTTP/1.1", b"host: x", *websocket).websocket
    assert not parsed(b"POST / HTTP/1.1", b"host: x", *websocket).websocket
    assert not parsed(b"GET / HTTP/1.1", b"host: x", b"upgrade: websocket").websocket
    clear_text_http2 = [b"connection: upgrade, http2-settings", b"upgrade: h2c"]
    head = parsed(b"POST / HTTP/1.1", b"host: x", *clear_text_http2, b"content-length: 3")
    assert not head.websocket
    assert head.content_length == 3


def test_upgrade_headers_can_be_taken_out():
    raw = b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nhost: x\r\nupgrade:a\r\nx-upgrade: b\r\n\r\n"
    assert without_upgrade(raw) == b"GET / HTTP/1.1\r\nhost: x\r\nx-upgrade: b\r\n\r\n"


def test_bounds():
    limits = replace(LIMITS, header_count=3, target_bytes=100)
    ok = [b"GET /v1/a HTTP/1.1", b"host: x", b"a: b", b"c: d"]
    assert len(parsed(*ok, limits=limits).headers) == 3
    assert refusal(*ok, b"e: f", limits=limits) == 431
    long_target = b"GET /" + 200 * b"a" + b" HTTP/1.1"
    assert refusal(long_target, b"host: x", limits=limits) == 414


@pytest.mark.parametrize(
    ("beginning", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),  # TLS
        (b"\r\n", 400),
        (b"get ", 400),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\rfoo", 400),
        (b"GET /" + 20_000 * b"a", 414),
        (b"GET / HTTP/1.1\r\na: " + 65_536 * b"a", 431),
    ],
)
def test_beginnings_without_hope(beginning: bytes, status: int):
    with pytest.raises(ProxyError) as caught:
        check_beginning(beginning, 0, LIMITS)
    assert caught.value.status == status


@pytest.mark.parametrize("beginning", [b"G", b"GET /", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\n"])
def test_beginnings_with_hope(beginning: bytes):
    for start in range(len(beginning)):
        check_beginning(beginning, start, LIMITS)


SHOWN = tuple(name for name in Head.__slots__ if name not in ("_fields", "terms"))


def shown(head: Head) -> dict[str, object]:
    return {name: getattr(head, name) for name in SHOWN}


def outcome(read: Callable[[bytes], Head], raw: bytes) -> object:
    try:
        head = read(raw)
    except ProxyError as error:
        return error.status, str(error)
    # A copy: the next head may be the same object.
    return {name: list(v) if isinstance(v, list) else v for name, v in shown(head).items()}


LENGTHS = st.sampled_from([b"0", b"7", b"12", b"4096", b"007", b"1e3", b"-1", b"", b"9" * 19])
PIECES = st.sampled_from(
    [
        b"Host: x",
        b"X-A: b",
        b"X-A: c",
        b"Connection: close",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"X-Content-Length: 5",
        b"X-Note: content-length: 5",
    ]
)


@st.composite
def similar_heads(draw: st.DrawFn) -> list[bytes]:
    """Heads such as one client sends one after the other, and some that only look alike."""
    lines = [b"Host: x", *draw(st.lists(PIECES, max_size=3))]
    place = draw(st.integers(0, len(lines)))
    names = st.sampled_from([b"Content-Length: %b", b"content-length:%b", b"CONTENT-LENGTH: %b "])
    name = draw(names)
    heads = []
    for _ in range(draw(st.integers(1, 5))):
        lengths = [name % length for length in draw(st.lists(LENGTHS, max_size=2))]
        own = [*lines[:place], *lengths, *lines[place:]]
        if draw(st.integers(0, 4)) == 0:
            own.append(draw(PIECES))
        heads.append(b"\r\n".join([b"POST /v1/x HTTP/1.1", *own, b"", b""]))
    return heads


@given(similar_heads())
def test_a_head_like_the_one_before_is_read_as_if_it_were_the_first(heads: list[bytes]):
    reader = HeadReader(LIMITS)
    for raw in heads:
        assert outcome(reader.read, raw) == outcome(lambda raw: parse_head(raw, LIMITS), raw)


def head_of(length: bytes, *more: bytes) -> bytes:
    lines = [b"POST /v1/x HTTP/1.1", b"Host: x", b"Content-Length: " + length, *more]
    return b"\r\n".join([*lines, b"", b""])


def test_what_was_found_out_stays_with_a_head_that_says_the_same():
    reader = HeadReader(LIMITS)
    first = reader.read(head_of(b"7"))
    first.terms = terms = object()  # type: ignore[assignment]
    assert reader.read(head_of(b"12")).terms is terms
    assert reader.read(head_of(b"12", b"Authorization: Bearer other")).terms is None
    assert reader.read(head_of(b"12")).terms is None
