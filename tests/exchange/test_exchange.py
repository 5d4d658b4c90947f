"""What goes through an exchange as it came, and what is answered at its door."""

from __future__ import annotations

import json

import pytest
import trio
from exchange_bench import ONE, bench
from fakes import FakeRequest, chat, completion
from harness import instance_config


async def test_an_answer_passes_byte_for_byte_with_its_headers() -> None:
    answer = completion()
    answer.headers = [
        (b"content-type", b"application/json"),
        (b"x-ratelimit-remaining-tokens", b"77"),
        (b"x-request-id", b"theirs"),
        (b"set-cookie", b"a=b"),
        (b"connection", b"keep-alive"),
    ]
    async with bench(ONE, one=answer) as b:
        writer = await b.send(chat())
        assert writer.status == 200
        assert writer.body == b"".join(answer.pieces)  # type: ignore[arg-type]
        assert dict(writer.headers) == {
            b"content-type": b"application/json",
            b"x-ratelimit-remaining-tokens": b"77",
            b"x-upstream-request-id": b"theirs",
            b"x-proxy-instance": b"one",
            b"x-request-id": b.records[0].id.encode(),
        }
        assert b.upstream.answers[0].closed
        standing = b.system.standing("one")
        assert standing.successful_requests == 1
        assert standing.account.usage.total(trio.current_time()) == 12


async def test_the_request_reaches_azure_as_it_came_with_its_own_key() -> None:
    config = instance_config("one", model_deployments={"gpt-4": "my deployment"}, max_tpm=10**6)
    async with bench(config, one=completion()) as b:
        request = chat(temperature=0.5)
        request.headers = [
            (b"authorization", b"Bearer client"),
            (b"api-key", b"client"),
            (b"cookie", b"c"),
            (b"x-stainless-lang", b"python"),
            (b"content-type", b"application/json"),
            (b"connection", b"close, x-secret"),
            (b"x-secret", b"1"),
        ]
        await b.send(request)
        sent = b.upstream.requests[0]
        assert sent.url == (
            "https://one.openai.azure.com/openai/deployments/my%20deployment/chat/completions"
            "?api-version=2024-10-21"
        )
        assert sent.body == request.pieces[0]
        assert dict(sent.headers) == {
            b"content-type": b"application/json",
            b"accept-encoding": b"identity",
            b"api-key": config.api_key.encode(),
        }


async def test_a_generic_instance_gets_its_own_model_name_in_the_body() -> None:
    config = instance_config(
        "one", provider_type="generic", api_base="http://llm", model_deployments={"gpt-4": "llama"},
        max_tpm=10**6,
    )  # fmt: skip
    async with bench(config, one=completion()) as b:
        request = chat(temperature=1.0)
        await b.send(request)
        sent = b.upstream.requests[0]
        assert sent.url == "http://llm/v1/chat/completions"
        assert sent.body == request.pieces[0].replace(b'"gpt-4"', b'"llama"')
        assert dict(sent.headers)[b"authorization"] == b"Bearer " + config.api_key.encode()


@pytest.mark.parametrize(
    ("request_", "status", "code", "param"),
    [
        (chat(model="nope"), 404, "model_not_found", "model"),
        (FakeRequest(pieces=[b'{"messages":[]}']), 400, "missing_model", "model"),
        (FakeRequest(pieces=[b'{"model":7}']), 400, None, "model"),
        (FakeRequest(pieces=[b'{"model":""}']), 400, None, "model"),
        (chat(stream="yes"), 400, None, "stream"),
        (chat(max_tokens="5"), 400, None, "max_tokens"),
        (chat(max_completion_tokens=0), 400, None, "max_completion_tokens"),
        (chat(max_tokens=True), 400, None, "max_tokens"),
        (FakeRequest(pieces=[b"{nope"]), 400, None, None),
        (FakeRequest(pieces=[b"[1]"]), 400, None, None),
        (FakeRequest(pieces=[]), 400, None, None),
        (FakeRequest(pieces=[b"x" * 10], limit=5), 413, "request_too_large", None),
        (FakeRequest("/v1/nothing", [b"{}"]), 404, "unknown_url", None),
        (FakeRequest(method="GET"), 405, "method_not_allowed", None),
    ],
)
async def test_bad_requests_get_errors_in_openais_shape(
    request_: FakeRequest, status: int, code: str | None, param: str | None
) -> None:
    async with bench(ONE, one=completion()) as b:
        writer = await b.send(
            FakeRequest(
                **{  # the parameters are shared between runs
                    name: getattr(request_, name)
                    for name in ("path", "pieces", "method", "headers", "limit")
                }
            )
        )
        error = writer.error()
        assert writer.status == status
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["code"], error["param"]) == (code, param)
        assert b.upstream.requests == []


async def test_a_refused_method_is_told_which_would_do() -> None:
    async with bench(ONE, one=completion()) as b:
        for path, allowed in [("/v1/chat/completions", b"POST"), ("/v1/models", b"GET, HEAD")]:
            writer = await b.send(FakeRequest(path, method="PUT"))
            assert writer.status == 405
            assert (b"allow", allowed) in writer.headers


async def test_client_keys_are_asked_for_when_there_are_any() -> None:
    async with bench(ONE, keys=("sk-good", "sk-other"), one=completion()) as b:
        for header, status in [
            ((b"authorization", b"Bearer sk-good"), 200),
            ((b"authorization", b"bearer sk-other"), 200),
            ((b"api-key", b"sk-good"), 200),
            ((b"api-key", b"sk-bad"), 401),
            ((b"authorization", b"Basic sk-good"), 401),
            ((b"x-nothing", b""), 401),
        ]:
            request = chat()
            request.headers = [header]
            assert (await b.send(request)).status == status


@pytest.mark.parametrize(
    "path", ["/v1/models", "/openai/v1/models", "/openai/models", "/v1/models/gpt-4"]
)
async def test_models_are_those_of_enabled_instances(path: str) -> None:
    off = instance_config("off", enabled=False, supported_models=["hidden"])
    async with bench(ONE, off, one=completion()) as b:
        writer = await b.send(FakeRequest(path, method="GET"))
        listed = json.loads(writer.body)
        models = listed["data"] if listed["object"] == "list" else [listed]
        assert [model["id"] for model in models] == ["gpt-4"]
        hidden = await b.send(FakeRequest("/v1/models/hidden", method="GET"))
        assert (hidden.status, hidden.error()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/openai/v1/chat/completions",
        "/openai/deployments/gpt-4/chat/completions",
    ],
)
async def test_an_operation_is_the_same_at_every_address(path: str) -> None:
    async with bench(ONE, one=completion()) as b:
        assert (await b.send(chat(path=path))).status == 200


async def test_the_request_id_of_the_client_is_kept_if_it_is_harmless() -> None:
    async with bench(ONE, one=completion()) as b:
        for given, kept in [(b"abc-1", True), (b"a b", False), (b"x" * 65, False)]:
            request = chat()
            request.headers.append((b"x-request-id", given))
            writer = await b.send(request)
            assert (writer.header(b"x-request-id") == given) is kept
