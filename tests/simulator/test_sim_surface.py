"""Which URLs exist, who may call them, and what a wrong one is answered."""

from __future__ import annotations

import pytest
from simulator_calls import (
    CHAT,
    HELLO,
    deployment,
    document,
    error,
    get,
    headers_of,
    post,
    resource,
    v1,
)

from proxy.simulator.surface import Address, locate

OLD = b"api-version=2023-05-15"
GA = b"api-version=2024-10-21"
NEW = b"api-version=2025-04-01-preview"
KEY = (b"api-key", b"simulated-key")
BEARER_KEY = (b"authorization", b"Bearer simulated-key")
BEARER_TOKEN = (b"authorization", b"Bearer an-entra-token")


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        (CHAT, GA, Address("dated", "chat/completions", "gpt-4o", "2024-10-21")),
        (
            "/openai/deployments/a.b-C/audio/speech",
            NEW,
            Address("dated", "audio/speech", "a.b-C", "2025-04-01-preview"),
        ),
        ("/openai/responses", NEW, Address("dated", "responses", None, "2025-04-01-preview")),
        (
            "/openai/responses/resp_1/cancel",
            NEW,
            Address("dated", "responses/resp_1/cancel", None, "2025-04-01-preview"),
        ),
        ("/openai/v1/chat/completions", b"", Address("v1", "chat/completions", None, "v1")),
        (
            "/openai/v1/responses",
            b"api-version=preview",
            Address("v1", "responses", None, "v1"),
        ),
        ("/v1/embeddings", b"", Address("plain", "embeddings", None, "v1")),
        ("/openai/models", GA, Address("dated", "models", None, "2024-10-21")),
        (
            "/openai/files/file-1/content",
            GA,
            Address("dated", "files/file-1/content", None, GA[12:].decode()),
        ),
        # No such place:
        (CHAT, b"", None),
        (CHAT, b"api-version=2024-10-22", None),
        (CHAT, b"api-version=v1", None),
        ("/openai/chat/completions", GA, None),
        ("/openai/deployments/gpt-4o/responses", NEW, None),
        ("/openai/deployments/gpt-4o/files", NEW, None),
        ("/openai/deployments//chat/completions", GA, None),
        ("/openai/deployments/gpt-4o", GA, None),
        ("/openai/responses", GA, None),
        ("/openai/batches", OLD, None),
        ("/openai/files//content", GA, None),
        ("/openai/v1", b"", None),
        ("/openai", GA, None),
        ("/chat/completions", GA, None),
        ("/", b"", None),
    ],
)
def test_addresses(path: str, query: bytes, expected: Address | None) -> None:
    assert locate(path, query) == expected


@pytest.mark.parametrize(
    ("path", "query", "credential", "status"),
    [
        (CHAT, GA, KEY, 200),
        (CHAT, GA, BEARER_TOKEN, 200),
        (CHAT, GA, BEARER_KEY, 401),
        (CHAT, GA, (b"api-key", b"wrong"), 401),
        (CHAT, GA, (b"api-key", b""), 401),
        (CHAT, GA, (b"x-other", b"simulated-key"), 401),
        ("/openai/v1/chat/completions", b"", KEY, 200),
        ("/openai/v1/chat/completions", b"", BEARER_KEY, 200),
        ("/openai/v1/chat/completions", b"", BEARER_TOKEN, 200),
        ("/openai/v1/chat/completions", b"", (b"authorization", b"Basic simulated-key"), 401),
        ("/v1/chat/completions", b"", BEARER_KEY, 200),
        ("/v1/chat/completions", b"", KEY, 401),
    ],
)
def test_credentials(path: str, query: bytes, credential: tuple[bytes, bytes], status: int) -> None:
    sim = resource(entra_tokens=["an-entra-token"])
    answer = post(sim, path, {**HELLO, "model": "gpt-4o"}, query=query, headers=(credential,))
    assert answer.status == status


def test_the_401s_are_those_of_the_service() -> None:
    wrong_key = post(resource(), CHAT, HELLO, headers=((b"api-key", b"no"),))
    assert error(wrong_key)["code"] == "401"
    assert "invalid subscription key" in error(wrong_key)["message"]
    wrong_token = post(resource(), CHAT, HELLO, headers=((b"authorization", b"Bearer no"),))
    assert error(wrong_token)["message"].startswith("Unauthorized. Access token is missing")
    plain = post(resource(), "/v1/chat/completions", HELLO, query=b"", headers=())
    assert error(plain)["code"] == "invalid_api_key"


def test_what_does_not_exist() -> None:
    sim = resource()
    unknown = post(sim, "/openai/deployments/other/chat/completions", HELLO)
    assert (unknown.status, error(unknown)["code"]) == (404, "DeploymentNotFound")
    plain = post(
        sim, "/v1/chat/completions", {**HELLO, "model": "x"}, query=b"", headers=(BEARER_KEY,)
    )
    assert (plain.status, error(plain)["code"]) == (404, "model_not_found")
    no_version = post(sim, CHAT, HELLO, query=b"")
    assert (no_version.status, document(no_version)) == (
        404,
        {"error": {"code": "404", "message": "Resource not found"}},
    )
    assert get(sim, CHAT).status == 404
    assert v1(sim, "assistants", {}).status == 404


def test_an_operation_that_the_model_does_not_have() -> None:
    answer = post(
        resource(deployment("text-embedding-3-small")),
        CHAT.replace("gpt-4o", "text-embedding-3-small"),
        HELLO,
    )
    assert (answer.status, error(answer)["code"]) == (400, "OperationNotSupported")


def test_identity_headers_name_the_resource_and_echo_the_client() -> None:
    sim = resource(region="Sweden Central")
    answer = post(sim, CHAT, HELLO, headers=(KEY, (b"x-ms-client-request-id", b"mine")))
    headers = headers_of(answer)
    assert headers["x-ms-region"] == "Sweden Central"
    assert headers["x-ms-deployment-name"] == "gpt-4o"
    assert headers["x-ms-client-request-id"] == "mine"
    assert headers["apim-request-id"] == headers["x-request-id"]
    other = headers_of(post(sim, CHAT, HELLO))
    assert other["x-request-id"] != headers["x-request-id"]


def test_more_than_ten_custom_headers_are_refused_but_the_sdk_may_send_its_own() -> None:
    custom = tuple((b"x-custom-%d" % number, b"1") for number in range(10))
    sdk = tuple((b"x-stainless-%d" % number, b"1") for number in range(10))
    assert post(resource(), CHAT, HELLO, headers=(KEY, *custom, *sdk)).status == 200
    assert post(resource(), CHAT, HELLO, headers=(KEY, *custom, (b"x-one", b"1"))).status == 431


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff"])
def test_a_body_that_is_no_object(body: bytes) -> None:
    assert post(resource(), CHAT, body).status == 400


def test_models_are_the_deployments() -> None:
    sim = resource(deployment("gpt-4o"), deployment("o3"))
    assert [model["id"] for model in document(get(sim, "/openai/models"))["data"]] == [
        "gpt-4o",
        "o3",
    ]
    assert document(v1(sim, "models/o3", method="GET"))["object"] == "model"
    assert v1(sim, "models/none", method="GET").status == 404


def test_one_seed_gives_one_run() -> None:
    def run(seed: int) -> list[object]:
        sim = resource(seed=seed)
        answers = [post(sim, CHAT, HELLO, now=second) for second in range(5)]
        return [(answer.status, answer.headers, answer.body) for answer in answers]

    assert run(1) == run(1)
    assert run(1) != run(2)
