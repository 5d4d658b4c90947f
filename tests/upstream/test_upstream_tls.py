"""TLS and proxies over real sockets."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from cancelling import cancel_at_each_step
from exchanging import counts, exchange, pools, read, request_to
from faulty_upstream import (
    CHAT,
    Script,
    Wire,
    answer,
    chunk,
    closing_on_second,
    closing_when_idle,
    event,
    faulty_upstream,
    head_of_stream,
    large_body,
    refusing_early,
    serving,
    stream,
    then_close,
    then_hang,
    then_reset,
)

from proxy.exchange.ports import UpstreamFailure
from proxy.upstream.dial import SocketDialer
from proxy.upstream.pool import PoolStatistics
from proxy.upstream.tls import TlsLink

if TYPE_CHECKING:
    from proxy.upstream.link import Link
    from proxy.upstream.origin import Origin

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("127.0.0.1", "localhost")


def server_context(certificate: trustme.LeafCert = CERTIFICATE) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    certificate.configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


class RecordingDialer(SocketDialer):
    """Keeps the links that it made."""

    def __init__(self) -> None:
        super().__init__(client_context())
        self.links: list[Link] = []

    async def dial(self, origin: Origin) -> Link:
        self.links.append(await super().dial(origin))
        return self.links[-1]

    @property
    def resumed(self) -> list[bool]:
        return [link.resumed for link in self.links if isinstance(link, TlsLink)]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_exchanges_streams_and_large_bodies(version: ssl.TLSVersion) -> None:
    context = server_context()
    context.maximum_version = version
    body = bytes(range(256)) * 8000
    async with (
        faulty_upstream(serving(answer(), stream(), answer(body)), tls=context) as server,
        pools(RecordingDialer()) as upstream,
    ):
        url = server.url.replace("127.0.0.1", "localhost")
        assert await exchange(upstream, request_to(url)) == CHAT
        assert (await exchange(upstream, request_to(url))).endswith(b"data: [DONE]\n\n")
        assert await exchange(upstream, request_to(url, body)) == body
        assert server.requests[2].body == body
        assert counts(upstream) == PoolStatistics(idle=1, opened=1, reused=2)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_new_connection_resumes_the_session(version: ssl.TLSVersion) -> None:
    context = server_context()
    context.maximum_version = version
    dialer = RecordingDialer()
    closing = then_close(answer(headers="connection: close\r\n"))
    async with faulty_upstream(closing, tls=context) as server, pools(dialer) as upstream:
        for _ in range(3):
            assert await exchange(upstream, request_to(server.url)) == CHAT
    assert dialer.resumed == [False, True, True]


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (AUTHORITY.issue_cert("other.example"), "IP address mismatch"),
        (trustme.CA().issue_cert("127.0.0.1"), "unable to get local issuer certificate"),
    ],
    ids=["wrong name", "unknown authority"],
)
async def test_a_wrong_certificate_is_refused(certificate: trustme.LeafCert, words: str) -> None:
    served: list[Wire] = []

    async def script(wire: Wire) -> None:
        served.append(wire)
        await wire.read_request()

    async with (
        faulty_upstream(script, tls=server_context(certificate)) as server,
        pools(RecordingDialer()) as upstream,
    ):
        with pytest.raises(UpstreamFailure, match=words) as caught:
            await upstream.send(request_to(server.url))
        assert (caught.value.phase, caught.value.kind) == ("connect", "tls")
        assert not server.requests
        assert counts(upstream) == PoolStatistics()


async def test_by_default_the_systems_authorities_are_trusted_and_no_others() -> None:
    async with (
        faulty_upstream(serving(), tls=server_context()) as server,
        pools(SocketDialer()) as upstream,
    ):
        with pytest.raises(
            UpstreamFailure, match="unable to get local issuer certificate"
        ) as caught:
            await upstream.send(request_to(server.url))
        assert (caught.value.phase, caught.value.kind) == ("connect", "tls")


async def test_a_server_without_tls() -> None:
    async def script(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await wire.wait_closed()

    async with faulty_upstream(script) as server, pools(RecordingDialer()) as upstream:
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(request_to(server.url.replace("http:", "https:")))
        assert (caught.value.phase, caught.value.kind) == ("connect", "tls")


@pytest.mark.parametrize(
    ("script", "phase", "kind"),
    [
        (then_reset(), "head", "reset"),
        (then_close(b""), "head", "reset"),
        (then_close(answer()[:-5]), "body", "reset"),
        (then_reset(head_of_stream() + chunk(event())), "body", "reset"),
        (then_close(b"HTTP/1.1 200 OK\r\n\r\nan end that nobody announced"), "body", "reset"),
        (then_hang(), "head", "timeout"),
        (then_hang(answer()[:-5]), "body", "timeout"),
    ],
)
async def test_faults_inside_tls(script: Script, phase: str, kind: str) -> None:
    timeout_s = 0.1 if kind == "timeout" else 5.0
    async with (
        faulty_upstream(script, tls=server_context()) as server,
        pools(RecordingDialer()) as upstream,
    ):
        with pytest.raises(UpstreamFailure) as caught:
            await exchange(upstream, request_to(server.url, patience_s=timeout_s))
        assert (caught.value.phase, caught.value.kind) == (phase, kind)
        with trio.fail_after(5):
            await server.wait_open(0)


async def test_an_announced_end_completes_a_body_without_length() -> None:
    async def script(wire: Wire) -> None:
        await wire.read_request()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await wire.stream.aclose()

    async with (
        faulty_upstream(script, tls=server_context()) as server,
        pools(RecordingDialer()) as upstream,
    ):
        assert await exchange(upstream, request_to(server.url)) == b"all of it"


async def test_stale_connections_inside_tls() -> None:
    idle = trio.Event()
    scripts = (closing_when_idle(answer(), idle), closing_on_second(answer()), serving())
    async with (
        faulty_upstream(*scripts, tls=server_context()) as server,
        pools(RecordingDialer()) as upstream,
    ):
        await exchange(upstream, request_to(server.url))
        idle.set()
        await server.wait_open(0)
        for _ in range(2):
            assert await exchange(upstream, request_to(server.url)) == CHAT
        assert counts(upstream) == PoolStatistics(idle=1, opened=3, reused=1, closed=2)


async def test_large_bodies_inside_tls_meet_backpressure_and_early_refusals() -> None:
    refusal = refusing_early(answer(b"{}", "413 Content Too Large"))
    async with (
        faulty_upstream(large_body(20_000_000), refusal, tls=server_context()) as server,
        pools(RecordingDialer()) as upstream,
    ):
        assert len(await exchange(upstream, request_to(server.url))) == 20_000_000
        await upstream.forget("one")
        response = await upstream.send(request_to(server.url, bytes(20_000_000)))
        assert (response.status, await read(response)) == (413, b"{}")


# Proxies


def proxy(target: str, *refusal: bytes) -> Script:
    """Tunnels to `target` whatever the client asks for, or answers with `refusal`."""
    host, port = target.rpartition("/")[2].split(":")

    async def script(wire: Wire) -> None:
        wire.upstream.requests.append(await wire.read_head())
        if refusal:
            await wire.send(refusal[0])
            return
        async with (
            await trio.open_tcp_stream(host, int(port)) as far,
            trio.open_nursery() as nursery,
        ):
            await wire.send(b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n")
            nursery.start_soon(_copy, wire.stream, far, nursery.cancel_scope)
            await _copy(far, wire.stream, nursery.cancel_scope)

    return script


async def _copy(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some():
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


@pytest.mark.parametrize("tls_to_proxy", [False, True])
async def test_a_tunnel_through_a_proxy(tls_to_proxy: bool) -> None:
    dialer = RecordingDialer()
    tls = server_context()
    closing = then_close(answer(headers="connection: close\r\n"))
    async with (
        faulty_upstream(closing, tls=server_context()) as server,
        faulty_upstream(proxy(server.url), tls=tls if tls_to_proxy else None) as middle,
        pools(dialer) as upstream,
    ):
        proxy_url = middle.url.replace("://", "://user:p%40ss@")
        for _ in range(2):
            made = request_to(server.url, proxy_url=proxy_url)
            assert await read(await upstream.send(made)) == CHAT
        assert dialer.resumed == [False, True]
        asked = middle.requests[0]
        authority = server.url.rpartition("/")[2]
        assert (asked.method, asked.target, asked.headers["host"]) == (
            "CONNECT", authority, authority,
        )  # fmt: skip
        assert asked.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
        assert "proxy-authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 2\r\n\r\nno", "other"),
        (b"HTTP/1.1 200 OK\r\n", "reset"),
        (b"nonsense\r\n\r\n", "protocol"),
    ],
)
async def test_a_proxy_that_refuses(refusal: bytes, kind: str) -> None:
    async with (
        faulty_upstream(proxy("h:1", refusal)) as middle,
        pools(RecordingDialer()) as upstream,
    ):
        proxy_url = middle.url.replace("//", "//u:secret@")
        made = request_to("https://somewhere.example", proxy_url=proxy_url)
        with pytest.raises(UpstreamFailure) as caught:
            await upstream.send(made)
        assert (caught.value.phase, caught.value.kind) == ("connect", kind)
        assert "secret" not in str(caught.value)


async def test_dialling_cancelled_at_every_step() -> None:
    async with (
        faulty_upstream(serving(), tls=server_context()) as server,
        faulty_upstream(proxy(server.url)) as middle,
        pools(RecordingDialer()) as upstream,
    ):

        async def through_proxy() -> None:
            await exchange(upstream, request_to(server.url, proxy_url=middle.url))

        async def check() -> None:
            assert counts(upstream).in_use == 0
            await upstream.forget("one")
            with trio.fail_after(5):
                await middle.wait_open(0)
                await server.wait_open(0)

        assert await cancel_at_each_step(through_proxy, check) > 5
