"""The request as each instance wants it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import FakeRequest
from harness import instance_config

from actors.models import InstanceConfig, UnresolvedReference
from proxy.exchange.attempt import path_names_model, takes_stream_options, upstream_request
from proxy.exchange.call import Call, read_call
from proxy.exchange.operations import find
from proxy.exchange.ports import UpstreamRequest
from proxy.exchange.upload import Upload
from proxy.tokens.output import Allowance
from proxy.upstream.address import AddressBook, dated_surface

AZURE = instance_config("az", api_base="https://r.openai.azure.com")
AZURE_V1 = instance_config("v1", api_base="https://r.openai.azure.com", api_version="v1")
AZURE_V1_BASE = instance_config("vb", api_base="https://r.openai.azure.com/openai/v1")
GENERIC = instance_config("ge", provider_type="generic", api_base="http://llm")
FORM_TYPE = (b"content-type", b"multipart/form-data; boundary=b")
FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'


class LeaseOf:
    def __init__(self, config: InstanceConfig, deployment: str = "dep") -> None:
        self.config = config
        self.deployment = deployment


async def call_of(body: Any, path: str = "/v1/chat/completions") -> Call:
    target = find(path)
    assert target is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = FakeRequest(path, [raw], headers=[FORM_TYPE, (b"content-length", b"%d" % len(raw))])
    return await read_call(request, target, Allowance())


def made(
    call: Call, config: InstanceConfig, *, ask_usage: bool = False, **more: Any
) -> UpstreamRequest:
    return upstream_request(
        call,
        LeaseOf(config, **more),  # type: ignore[arg-type]
        [(b"accept", b"*/*")],
        b"api-version=2022-12-01&x=1",
        ask_usage=ask_usage,
        addresses=AddressBook(),
    )


async def test_times_and_headers_are_the_instances() -> None:
    request = made(await call_of({"model": "m"}), AZURE.model_copy(update={"timeout_seconds": 7.0}))
    assert (request.timeout_s, request.silence_s, request.whole_s) == (7.0, 7.0, 7.0)
    assert request.method == "POST"
    assert request.headers == [(b"accept", b"*/*"), (b"api-key", AZURE.api_key.encode())]
    generic = made(await call_of({"model": "m"}), GENERIC)
    assert generic.headers[-1] == (b"authorization", b"Bearer " + GENERIC.api_key.encode())


@pytest.mark.parametrize(
    ("config", "path", "url", "model"),
    [
        (AZURE, "chat/completions",
         "https://r.openai.azure.com/openai/deployments/dep/chat/completions?api-version=2024-10-21&x=1",
         "m"),
        (AZURE, "responses",
         "https://r.openai.azure.com/openai/responses?api-version=2024-10-21&x=1", "dep"),
        (AZURE_V1, "chat/completions",
         "https://r.openai.azure.com/openai/v1/chat/completions?x=1", "dep"),
        (AZURE_V1_BASE, "embeddings",
         "https://r.openai.azure.com/openai/v1/embeddings?x=1", "dep"),
        (AZURE_V1, "responses", "https://r.openai.azure.com/openai/v1/responses?x=1", "dep"),
        (GENERIC, "chat/completions", "http://llm/v1/chat/completions?x=1", "dep"),
    ],
)  # fmt: skip
async def test_the_body_names_the_deployment_exactly_where_the_path_does_not(
    config: InstanceConfig, path: str, url: str, model: str
) -> None:
    call = await call_of({"model": "m", "input": "x"}, f"/v1/{path}")
    request = made(call, config)
    assert request.url == url
    assert isinstance(request.body, bytes)
    assert json.loads(request.body) == {"model": model, "input": "x"}
    assert path_names_model(call, config) == ("/deployments/" in url)


@pytest.mark.parametrize("version", ["2024-10-21", "2025-04-01-preview", "v1", "preview", "latest"])
@pytest.mark.parametrize("provider", ["azure", "generic"])
@pytest.mark.parametrize("base", ["https://r", "https://r/openai", "https://r/openai/v1"])
async def test_address_and_body_agree_on_who_names_the_model(
    version: str, provider: str, base: str
) -> None:
    config = instance_config(api_base=base, api_version=version, provider_type=provider)
    call = await call_of({"model": "m"})
    request = made(call, config)
    in_path = "/deployments/dep/" in request.url
    assert in_path == path_names_model(call, config) == dated_surface(config)
    assert isinstance(request.body, bytes)
    assert in_path or json.loads(request.body)["model"] == "dep"


async def test_a_body_that_needs_no_change_is_the_very_same() -> None:
    for config, deployment in ((AZURE, "dep"), (GENERIC, "m")):
        call = await call_of({"model": "m"})
        assert made(call, config, deployment=deployment).body is call.body


async def test_the_model_of_the_path_gets_into_the_body_where_it_is_needed() -> None:
    call = await call_of(b'{ "messages":[] }', "/openai/deployments/gpt-4/chat/completions")
    assert made(call, AZURE).body is call.body
    assert made(call, GENERIC).body == b'{"model":"dep", "messages":[] }'


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "stream": True},
        {"model": "m", "stream": True, "stream_options": None},
        {"model": "m", "stream": True, "stream_options": {"include_usage": False}},
        {"model": "m", "stream": True, "stream_options": {"include_obfuscation": False}},
        {"model": "m", "stream": True, "metadata": {"model": "mine"}},
    ],
)
async def test_usage_is_asked_for_together_with_the_other_model_name(body: dict[str, Any]) -> None:
    call = await call_of(body)
    options = {**(body.get("stream_options") or {}), "include_usage": True}
    for config, model in ((AZURE, "m"), (GENERIC, "dep")):
        request = made(call, config, ask_usage=True)
        assert isinstance(request.body, bytes)
        assert json.loads(request.body) == {**body, "model": model, "stream_options": options}


async def test_a_form_gets_each_instances_own_name_in_turn() -> None:
    call = await call_of(FORM, "/v1/audio/transcriptions")
    for config, deployment, sent in [
        (AZURE, "dep", "m"), (GENERIC, "large", "large"), (AZURE_V1, "x", "x"), (AZURE, "d", "m"),
    ]:  # fmt: skip
        request = made(call, config, deployment=deployment)
        assert isinstance(request.body, Upload)
        pieces = []
        while piece := await request.body.read_chunk():
            pieces.append(piece)
        expected = FORM.replace(b"\r\nm\r\n", b"\r\n%b\r\n" % sent.encode())
        assert b"".join(pieces) == expected
        assert request.body.length == len(expected)
    call.close()


@pytest.mark.parametrize(
    ("fields", "takes"),
    [
        ({"api_version": "2024-02-01"}, False),
        ({"api_version": "2024-08-01-preview"}, False),
        ({"api_version": "2024-09-01-preview"}, True),
        ({"api_version": "2024-10-21"}, True),
        ({"api_version": "v1"}, True),
        ({"api_version": "2024-02-01", "api_base": "https://r/openai/v1"}, True),
        ({"api_version": "2024-02-01", "provider_type": "generic"}, True),
    ],
)
def test_only_old_dated_versions_are_not_asked_for_usage(
    fields: dict[str, Any], *, takes: bool
) -> None:
    assert takes_stream_options(instance_config(**fields)) is takes


async def test_a_key_that_is_not_there_is_an_error_of_its_own() -> None:
    config = instance_config(api_key="${SURELY_NOT_SET_ANYWHERE}")
    with pytest.raises(UnresolvedReference):
        made(await call_of({"model": "m"}), config)
