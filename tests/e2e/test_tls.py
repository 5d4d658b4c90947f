"""HTTPS by setting: with the official SDK, over HTTP/1.1 and HTTP/2, and when the files change."""

from __future__ import annotations

import json
import os
import signal
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import openai
import pytest
import trio
import trustme

from proxy.cli import main
from proxy.health import ask
from proxy.server.certificate import Files
from proxy.service import serve_with_stores
from proxy.settings import load_settings
from proxy.simulator.demo import simulated_resource
from proxy.simulator.deployment import INSTANT
from proxy.simulator.resource import DEFAULT_KEY
from proxy.simulator.serving import serve_resource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "admin-key-for-tests"
QUESTION: Any = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 5,
}


@dataclass
class Site:
    """A folder with a certificate, and what the service there is told."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        return {
            "INSTANCE_CONFIG_FILE": str(self.folder / "configs.json"),
            "INSTANCE_STATE_FILE": str(self.folder / "states.json"),
            "TLS_CERT_FILE": str(self.folder / "chain.pem"),
            "TLS_KEY_FILE": str(self.folder / "key.pem"),
            "ADMIN_API_KEY": KEY,
            "PORT": "0",
        }

    def certify(self, authority: trustme.CA) -> None:
        certificate = authority.issue_cert("127.0.0.1")
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        (self.folder / "chain.pem").write_bytes(chain)
        key = self.folder / "key.pem"
        key.touch(0o600)
        key.write_bytes(certificate.private_key_pem.bytes())

    def configure(self, **records: Any) -> None:
        (self.folder / "configs.json").write_text(json.dumps(records))


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def site(tmp_path: Path, authority: trustme.CA) -> Site:
    site = Site(tmp_path)
    site.certify(authority)
    return site


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[str]:
    """The URL of the service in front of one simulated resource."""
    resource = simulated_resource("r", ["gpt-4o"], tpm=100_000, latency=INSTANT, seed=1)
    urls: list[str] = []
    ready = trio.Event()

    def on_ready(served: list[str]) -> None:
        urls.extend(served)
        ready.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            upstream = await nursery.start(serve_resource, resource, "127.0.0.1", 0)
            site.configure(
                r={"api_key": DEFAULT_KEY, "api_base": upstream, "supported_models": ["gpt-4o"]}
            )
            nursery.start_soon(serve_with_stores, load_settings(site.environ), on_ready)
            await ready.wait()
            yield urls[0]
            nursery.cancel_scope.cancel()


@pytest.mark.filterwarnings("ignore:.*(httpcore2|httpx2|openai).*:ResourceWarning")
async def test_the_sdk_over_https(site: Site, authority: trustme.CA) -> None:
    async with serving(site) as url:
        assert url.startswith("https://")
        http = httpx2.AsyncClient(verify=trusting(authority))
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=http
        ) as client:
            answer = await client.chat.completions.create(**QUESTION)
            assert answer.choices[0].message.content
            stream = await client.chat.completions.create(**QUESTION, stream=True)
            text = [chunk async for chunk in stream]
            assert text[-1].choices[0].finish_reason


@pytest.mark.parametrize(("http2", "version"), [(False, "HTTP/1.1"), (True, "HTTP/2")])
async def test_both_versions_of_http(
    http2: bool, version: str, site: Site, authority: trustme.CA
) -> None:
    async with (
        serving(site) as url,
        httpx.AsyncClient(verify=trusting(authority), http2=http2, base_url=url) as client,
    ):
        for path, body in (("/v1/chat/completions", QUESTION), ("/healthz", None)):
            answer = await client.request("POST" if body else "GET", path, json=body)
            assert (answer.status_code, answer.http_version) == (200, version)


async def test_the_health_check_needs_no_trust_in_the_certificate(site: Site) -> None:
    async with serving(site) as url:
        settings = load_settings(site.environ | {"PORT": url.rpartition(":")[2]})
        assert await trio.to_thread.run_sync(ask, settings, "/healthz") is None


def test_versions_before_tls_1_2_are_not_offered(site: Site) -> None:
    context = Files(site.folder / "chain.pem", site.folder / "key.pem").context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_is_in_use_after_a_hangup_signal(
    site: Site, authority: trustme.CA
) -> None:
    renewed_by = trustme.CA()
    async with (
        serving(site) as url,
        httpx.AsyncClient(verify=trusting(authority), base_url=url) as before,
    ):
        assert (await before.post("/v1/chat/completions", json=QUESTION)).status_code == 200
        site.certify(renewed_by)
        os.kill(os.getpid(), signal.SIGHUP)
        await until_served_with(renewed_by, url)
        again = await before.post("/v1/chat/completions", json=QUESTION)
        assert again.status_code == 200, "the connection that was open goes on"
        async with httpx.AsyncClient(verify=trusting(authority)) as late:
            with pytest.raises(httpx.ConnectError):
                await late.get(f"{url}/healthz")


async def until_served_with(authority: trustme.CA, url: str) -> None:
    """Fails when that takes too long; nothing else says when the files have been read."""
    while True:
        async with httpx.AsyncClient(verify=trusting(authority)) as client:
            try:
                await client.get(f"{url}/healthz")
            except httpx.ConnectError:
                await trio.sleep(0.02)
            else:
                return


async def test_a_renewal_that_went_wrong_changes_nothing(
    site: Site, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(site) as url:
        (site.folder / "key.pem").write_text("half of a k")
        os.kill(os.getpid(), signal.SIGHUP)
        while "certificate not reloaded" not in caplog.text:  # noqa: ASYNC110 - it is a log
            await trio.sleep(0.01)
        async with httpx.AsyncClient(verify=trusting(authority)) as client:
            assert (await client.get(f"{url}/healthz")).status_code == 200
    assert "half of a k" not in caplog.text


# -- what can't be used ------------------------------------------------------------------------


def missing(site: Site) -> None:
    (site.folder / "chain.pem").unlink()


def foreign_key(site: Site) -> None:
    own = (site.folder / "chain.pem").read_bytes()
    site.certify(trustme.CA())
    (site.folder / "chain.pem").write_bytes(own)


def no_pem(site: Site) -> None:
    (site.folder / "key.pem").write_text("not a key")


def encrypted(site: Site) -> None:
    from cryptography.hazmat.primitives import serialization

    file = site.folder / "key.pem"
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
    )


@pytest.fixture
def environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's: it has `.env` and the settings of `site`."""
    monkeypatch.chdir(site.folder)
    for name, value in site.environ.items():
        monkeypatch.setenv(name, value)
    site.configure()


@pytest.mark.parametrize("command", [["check"], []])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (missing, "TLS_CERT_FILE: {0}/chain.pem: No such file or directory"),
        (foreign_key, "TLS_KEY_FILE: {0}/key.pem is not the key of the first certificate in"),
        (no_pem, "{0}/chain.pem and {0}/key.pem must be PEM files"),
        (encrypted, "TLS_KEY_FILE: {0}/key.pem is encrypted"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_files_that_cannot_be_used_stop_the_start(
    command: list[str],
    damage: Any,
    sentence: str,
    site: Site,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(site)
    assert main(command) == 1
    assert sentence.format(site.folder) in capsys.readouterr().err


@pytest.mark.usefixtures("environment")
def test_check_warns_of_a_key_that_others_may_read(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().err == ""
    (site.folder / "key.pem").chmod(0o644)
    assert main(["check"]) == 0
    assert "key.pem (mode 0644): chmod 600" in capsys.readouterr().err


@pytest.mark.usefixtures("environment")
def test_one_file_without_the_other_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TLS_KEY_FILE")
    assert main([]) == 1
    assert "TLS_CERT_FILE is set and TLS_KEY_FILE is not" in capsys.readouterr().err
