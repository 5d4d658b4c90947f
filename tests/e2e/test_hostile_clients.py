"""Clients that mean harm, through the real listener: each is refused in so many words, nothing of
theirs reaches an upstream or the admin API, and the next client is served."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from faulty_service import Instance, chat_request, faulty_service
from faulty_upstream import serving, then_hang
from hostile_service import AZURE, BODY, HIDDEN, LENGTH, post, refusal, say_in_http2, service, told
from served import ADMIN_KEY

# -- slow and large ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "beginning",
    [
        b"P",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ",
        post(LENGTH, body=BODY[:-1]),
        post(b"transfer-encoding: chunked", body=b"5\r\n{"),
        b"GET /admin/instances HTTP/1.1\r\nhost: x\r\n",
    ],
)
async def test_a_request_that_does_not_end(beginning: bytes, tmp_path: Path) -> None:
    async with service(tmp_path, request_timeout_seconds=0.3) as running:
        status, error = refusal(await told(running, beginning))
        assert (status, error["code"]) == (408, "request_timeout")
        assert "REQUEST_TIMEOUT_SECONDS" in error["message"]


async def test_a_connection_without_a_request(tmp_path: Path) -> None:
    async with service(tmp_path, keep_alive_seconds=0.1) as running:
        assert await told(running) == b""


@pytest.mark.parametrize(
    ("request_", "status", "code", "names"),
    [
        (post(LENGTH, b"x-large: " + b"x" * 2000), 431, "headers_too_large", "MAX_HEADER_BYTES"),
        (post(b"x-large: " + b"x" * 70_000, body=b""), 431, "headers_too_large", "65536"),
        (post(LENGTH, *[b"a: b"] * 201), 431, "too_many_headers", "200"),
        (post(LENGTH, path=b"/v1/" + b"x" * 20_000), 414, "target_too_long", "16384"),
        (post(b"content-length: 4097"), 413, "request_too_large", "MAX_REQUEST_BYTES"),
        (post(b"content-length: 999999999999"), 413, "request_too_large", "MAX_REQUEST_BYTES"),
        (post(b"transfer-encoding: chunked", body=b"1001\r\n" + b"x" * 4097), 413,
         "request_too_large", "MAX_REQUEST_BYTES"),
    ],
)  # fmt: skip
async def test_a_request_that_is_too_large(
    request_: bytes, status: int, code: str, names: str, tmp_path: Path
) -> None:
    head_bytes = 1024 if names == "MAX_HEADER_BYTES" else 65_536
    limits = {"max_request_bytes": 4096, "max_header_bytes": head_bytes}
    async with service(tmp_path, **limits) as running:
        seen, error = refusal(await told(running, request_))
        assert (seen, error["code"]) == (status, code)
        assert names in error["message"]


async def test_the_limit_of_headers_is_the_same_in_http2(tmp_path: Path) -> None:
    async with service(tmp_path, expected=2, max_header_bytes=1024) as running:
        assert await say_in_http2(running, {"x-small": "x" * 200}) == "200"
        assert await say_in_http2(running, {"x-large": "x" * 2000}) is None
    async with service(tmp_path, expected=2, max_header_bytes=200_000) as running:
        large = {f"x-{number}": "x" * 10_000 for number in range(8)}
        assert await say_in_http2(running, large) == "200"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/healthz"])
async def test_the_limits_within_a_head_are_the_same_in_http2(path: str, tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        many = {f"x-{number}": "y" for number in range(200)}
        assert await say_in_http2(running, {":path": path, **many}) == "431"
        assert await say_in_http2(running, {":path": f"{path}?{'x' * 16_384}"}) == "414"


async def test_a_large_head_for_a_page_is_taken_as_any_other(tmp_path: Path) -> None:
    async with service(tmp_path, max_header_bytes=200_000) as running:
        page = await running.http.get("/healthz", headers={"x-large": "x" * 100_000})
        assert page.status_code == 200


async def test_too_many_requests_at_once(tmp_path: Path) -> None:
    slow = Instance("one", (then_hang(), serving()))
    async with service(tmp_path, slow, expected=2, max_concurrent_requests=1) as running:
        async with await running.connect() as first:
            await first.send_all(chat_request())
            await running.upstreams["one"].wait_open(1)
            refused = await running.http.post("/v1/chat/completions", content=BODY)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (503, "too_many_requests_in_progress")
            assert "MAX_CONCURRENT_REQUESTS" in error["message"]
        await running.upstreams["one"].wait_open(0)


async def test_too_many_connections_of_one_client(tmp_path: Path) -> None:
    async with service(tmp_path, max_connections_per_client=2) as running:
        async with await running.connect() as first, await running.connect() as second:
            for client in (first, second):
                await client.send_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
                assert b" 200 " in await client.receive_some()
            status, error = refusal(await told(running))
            assert (status, error["code"]) == (503, "too_many_connections_from_client")
            assert "MAX_CONNECTIONS_PER_CLIENT" in error["message"]
        statistics = running.service.listening.statistics
        while (open_now := statistics()) is None or open_now.open:
            await trio.testing.wait_all_tasks_blocked(0.001)


# -- two readings of one request ---------------------------------------------------------------

CHUNKED = b"transfer-encoding: chunked"
SMUGGLED = {
    "length and chunked": post(b"content-length: 4", CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "chunked and length": post(CHUNKED, b"content-length: 4", body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": post(LENGTH, b"content-length: 0", body=BODY + HIDDEN),
    "one length twice": post(LENGTH, LENGTH, body=BODY + HIDDEN),
    "two lengths in one": post(b"content-length: 4, 4", body=BODY + HIDDEN),
    "a length with a sign": post(b"content-length: +4", body=BODY + HIDDEN),
    "a length in hexadecimal": post(b"content-length: 0x4", body=BODY + HIDDEN),
    "a space before the colon": post(b"content-length : 4", body=BODY + HIDDEN),
    "a folded line": post(b"x: y\r\n content-length: 4", LENGTH, body=BODY + HIDDEN),
    "two codings": post(b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunked twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "an unknown coding": post(b"transfer-encoding: xchunked", body=b"0\r\n\r\n" + HIDDEN),
    "behind a vertical tab": post(b"transfer-encoding:\x0bchunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n").replace(b"1.1", b"1.0", 1),
    "bare LF": post(LENGTH).replace(b"\r\n", b"\n") + HIDDEN,
    "bare CR": post(b"x: y\rcontent-length: 4", LENGTH) + HIDDEN,
    "NUL in a header": post(b"x: a\x00b", LENGTH) + HIDDEN,
    "bare LF in chunks": post(CHUNKED, body=b"3\n{}\n\n0\n\n" + HIDDEN),
    "a chunk size that is none": post(CHUNKED, body=b"-1\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    "two hosts": post(b"host: y", LENGTH) + HIDDEN,
    "no host": post(LENGTH).replace(b"host: x\r\n", b"") + HIDDEN,
    "nothing before it": b"\r\n" + post(LENGTH),
    "no request at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


async def test_what_could_be_read_in_two_ways_is_not_read(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        for name, sent in SMUGGLED.items():
            status, error = refusal(await told(running, sent))
            assert (status, error["type"]) == (400, "invalid_request_error"), name


async def test_a_tab_before_a_value_is_white_space_like_any(tmp_path: Path) -> None:
    async with service(tmp_path, expected=2) as running:
        chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
        sent = post(b"transfer-encoding:\tchunked", b"connection: close", body=chunks)
        assert (await told(running, sent)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("chunks", [b"2 \r\n{}\r\n0\r\n\r\n", b"2\n{}\r\n0\r\n\r\n"])
async def test_nothing_hides_behind_what_the_admin_apis_parser_reads(
    chunks: bytes, tmp_path: Path
) -> None:
    async with service(tmp_path, request_timeout_seconds=0.3) as running:
        key = b"x-admin-api-key: " + ADMIN_KEY.encode()
        json_ = b"content-type: application/json"
        sent = post(CHUNKED, key, json_, body=chunks + HIDDEN, path=b"/admin/instances")
        received = await told(running, sent)
        assert received.count(b"HTTP/1.1 ") == 1
        assert int(received.split()[1]) in (400, 422)
        assert b"connection: close" in received


async def test_pipelined_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    async with service(tmp_path, expected=4) as running:
        last = post(b"connection: close", b"x-request-id: id-3", LENGTH)
        sent = post(b"x-request-id: id-1", LENGTH) + post(b"x-request-id: id-2", LENGTH) + last
        received = await told(running, sent)
        ids = [line for line in received.split(b"\r\n") if line.startswith(b"x-request-id")]
        assert ids == [b"x-request-id: id-%d" % number for number in (1, 2, 3)]
        assert received.count(b"HTTP/1.1 200 OK") == 3


# -- the admin API -----------------------------------------------------------------------------


ADMIN = [
    ("GET", "/admin/instances"),
    ("POST", "/admin/instances"),
    ("GET", "/admin/instances/azure/config"),
    ("PUT", "/admin/instances/azure/state"),
    ("DELETE", "/admin/instances/azure"),
    ("GET", "/admin/instances/..%2f..%2f/config"),
    ("GET", "/admin/%2e%2e/admin/instances"),
    ("GET", "//admin/instances"),
    ("GET", "/v1/../admin/instances"),
    ("GET", "/ADMIN/instances"),
    ("GET", "/admin/nothing"),
    ("GET", "/metrics"),
]
CLIENT_KEY = "client-key-0123456789"
WRONG_KEYS = [
    "x-nothing: here",
    "x-admin-api-key: wrong",
    f"x-admin-api-key: {ADMIN_KEY[:-1]}",
    f"x-admin-api-key: {CLIENT_KEY}",
    f"authorization: Bearer {CLIENT_KEY}",
]


async def test_nothing_of_the_admin_api_is_had_without_its_key(tmp_path: Path) -> None:
    async with faulty_service(tmp_path, AZURE, settings={"PROXY_API_KEYS": CLIENT_KEY}) as running:
        for method, path in ADMIN:
            for key in WRONG_KEYS:
                body = '{"enabled": false}'
                head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{key}\r\n"
                request = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()
                received = await told(running, request)
                assert int(received.split()[1]) in (401, 404), (method, path, key)
                assert b"azure" not in received
        assert (await running.state("azure"))["status"] == "healthy"
