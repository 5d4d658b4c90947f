"""Addresses, and which proxy leads to them."""

from __future__ import annotations

from base64 import b64encode

import pytest

from actors.address import InvalidAddress
from proxy.upstream.environment import proxy_for, unusable_variables
from proxy.upstream.origin import Origin, Proxy, target_of


@pytest.mark.parametrize(
    ("url", "origin", "authority", "target"),
    [
        ("http://h", ("http", "h", 80), "h", "/"),
        ("https://H.Example/a?b=c", ("https", "h.example", 443), "h.example", "/a?b=c"),
        ("https://h:8443/a", ("https", "h", 8443), "h:8443", "/a"),
        ("http://[::1]:80/", ("http", "::1", 80), "[::1]", "/"),
        ("http://[::1]:81?x=/y", ("http", "::1", 81), "[::1]:81", "/?x=/y"),
        ("https://h:443/a", ("https", "h", 443), "h", "/a"),
    ],
)
def test_an_address_is_taken_apart(
    url: str, origin: tuple[str, str, int], authority: str, target: str
) -> None:
    parsed = Origin.parse(url)
    assert (parsed.scheme, parsed.host, parsed.port) == origin
    assert parsed.authority == authority
    assert target_of(url) == target


@pytest.mark.parametrize(
    "url",
    ["ftp://h", "h:80", "http://", "http://h:0", "http://h:99999", "http://h:x", "http://[::1"],
)
def test_what_is_no_address_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        Origin.parse(url)
    assert url not in str(caught.value)


def test_a_proxys_password_is_decoded_and_not_shown() -> None:
    proxy = Proxy.parse("http://user:p%40ss@proxy.example:3128")
    assert (proxy.scheme, proxy.host, proxy.port) == ("http", "proxy.example", 3128)
    assert proxy.authorization == b"Basic " + b64encode(b"user:p@ss")
    assert "Basic" not in repr(Origin("http", "h", 80, proxy))
    assert Proxy.parse("proxy.example:3128").port == 3128


ENVIRON = {
    "HTTPS_PROXY": "http://upper:1",
    "https_proxy": "http://lower:2",
    "HTTP_PROXY": "http://plain:3",
    "NO_PROXY": ".internal.example,direct.example:8443 10.0.0.0/8,fd00::/8,*.star.test",
}


@pytest.mark.parametrize(
    ("scheme", "host", "port", "proxy"),
    [
        ("https", "api.example", 443, "lower"),
        ("http", "api.example", 80, "plain"),
        ("https", "a.internal.example", 443, None),
        ("https", "internal.example", 443, None),
        ("https", "notinternal.example", 443, "lower"),
        ("https", "direct.example", 8443, None),
        ("https", "direct.example", 443, "lower"),
        ("https", "10.2.3.4", 443, None),
        ("https", "11.2.3.4", 443, "lower"),
        ("https", "fd00::1", 443, None),
        ("https", "a.star.test", 443, None),
    ],
)
def test_the_environment_names_the_proxy(
    scheme: str, host: str, port: int, proxy: str | None
) -> None:
    found = proxy_for(scheme, host, port, ENVIRON)
    assert (found.host if found else None) == proxy


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("fd00::1", "fd00::1"),
        ("fd00::1", "[fd00::1]"),
        ("fd00::1", "[fd00::1]:443"),
        ("x.azure.example", "azure.example."),
        ("x.azure.example.", "azure.example"),
        ("azure.example.", ".azure.example."),
        ("x.azure.example", "AZURE.example.:443"),
    ],
)
def test_an_exemption_is_honoured_however_it_is_written(host: str, entry: str) -> None:
    environ = {"https_proxy": "http://p:1", "no_proxy": f"other.example,{entry}"}
    assert proxy_for("https", host, 443, environ) is None
    assert proxy_for("https", "fd00.example", 443, environ) is not None


def test_what_is_unusable_in_the_environment_is_named_and_not_shown() -> None:
    environ = {
        "HTTPS_PROXY": "socks5://u:secret@p:1",
        "http_proxy": "http://p:99999",
        "ALL_PROXY": "p:3128",
    }
    assert list(unusable_variables(environ)) == [
        "HTTPS_PROXY can't be used as an HTTP proxy: the scheme must be http or https",
        "HTTP_PROXY can't be used as an HTTP proxy: the port must be a number from 1 to 65535",
    ]
    assert list(unusable_variables({"http_proxy": " "})) == []


@pytest.mark.parametrize("host", ["localhost", "localhost.", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_is_reached_directly(host: str) -> None:
    assert proxy_for("http", host, 80, {"http_proxy": "http://p:1"}) is None


def test_one_proxy_for_all_and_none_at_all() -> None:
    assert proxy_for("http", "h", 80, {"ALL_PROXY": "http://p:1"}) == Proxy("http", "p", 1)
    assert proxy_for("http", "h", 80, {"ALL_PROXY": "http://p:1", "no_proxy": "*"}) is None
    assert proxy_for("http", "h", 80, {"http_proxy": " "}) is None
    with pytest.raises(InvalidAddress):
        proxy_for("http", "h", 80, {"ALL_PROXY": "socks5://p:1"})
