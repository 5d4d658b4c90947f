"""The Quart application: every surface, streams chunk by chunk, and the controls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from simulator_calls import CHAT, HELLO, deployment, resource, sse_events

from proxy.simulator.app import create_app
from proxy.simulator.deployment import Latency
from proxy.simulator.faults import Fault

if TYPE_CHECKING:
    from quart_trio.testing import TrioClient
    from trio.testing import MockClock

    from proxy.simulator.resource import Resource

KEY = {"api-key": "simulated-key"}
BEARER = {"authorization": "Bearer simulated-key"}
SURFACES = [
    (f"{CHAT}?api-version=2024-10-21", KEY),
    ("/openai/v1/chat/completions", BEARER),
    ("/v1/chat/completions", BEARER),
]


LOOPBACK: dict[str, Any] = {"scope_base": {"client": ("127.0.0.1", 1234)}}


def client(sim: Resource) -> TrioClient:
    return create_app(sim).test_client()


@pytest.mark.parametrize(("url", "credential"), SURFACES)
async def test_every_surface_answers(url: str, credential: dict[str, str]) -> None:
    answer = await client(resource()).post(
        url, headers=credential, json={**HELLO, "model": "gpt-4o", "max_tokens": 3}
    )
    assert answer.status_code == 200
    body = await answer.get_json()
    assert body["usage"]["completion_tokens"] == 3
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(await answer.get_data())


async def test_error_answers_keep_their_status_headers_and_body() -> None:
    asked = client(resource())
    answer = await asked.post(SURFACES[0][0], json=HELLO)
    assert answer.status_code == 401
    assert (await answer.get_json())["error"]["code"] == "401"
    assert (await asked.get("/")).status_code == 401
    assert (await asked.get("/", headers=KEY)).status_code == 404
    assert (
        await asked.get("//openai//models?api-version=2024-10-21", headers=KEY)
    ).status_code == 404


async def test_a_deployment_name_may_hold_what_a_url_has_to_escape() -> None:
    sim = resource(deployment("gpt 4o", model="gpt-4o"))
    url = "/openai/deployments/gpt%204o/chat/completions?api-version=2024-10-21"
    assert (await client(sim).post(url, headers=KEY, json=HELLO)).status_code == 200


async def test_a_stream_is_sent_as_it_is_generated(autojump_clock: MockClock) -> None:
    latency = Latency(first_token_s=1.0, per_token_s=0.5, jitter_s=0.0)
    sim = resource(deployment(latency=latency))
    asked = client(sim).request(
        CHAT, method="POST", query_string={"api-version": "2024-10-21"}, headers=KEY
    )
    chunks = []
    async with asked as connection:
        await connection.send(json.dumps({**HELLO, "stream": True, "max_tokens": 2}).encode())
        await connection.send_complete()
        while not chunks or b"[DONE]" not in chunks[-1][0]:
            chunks.append((await connection.receive(), trio.current_time()))
    assert [at for _, at in chunks] == pytest.approx([0, 0, 1.5, 2.0, 2.0, 2.0])
    assert sse_events(b"".join(chunk for chunk, _ in chunks))[-1][1] == "[DONE]"


async def test_a_stream_outlives_quarts_own_time_limit(autojump_clock: MockClock) -> None:
    slow = Latency(first_token_s=300.0, per_token_s=100.0, jitter_s=0.0)
    with trio.fail_after(1000):
        answer = await client(resource(deployment(latency=slow))).post(
            SURFACES[0][0], headers=KEY, json={**HELLO, "stream": True, "max_tokens": 3}
        )
    assert (await answer.get_data()).endswith(b"data: [DONE]\n\n")
    assert trio.current_time() == pytest.approx(600)


async def test_a_client_that_leaves_ends_the_generation(autojump_clock: MockClock) -> None:
    slow = Latency(first_token_s=1.0, per_token_s=1.0, jitter_s=0.0)
    sim = resource(deployment(latency=slow, answer_tokens=(50, 50)))
    asked = client(sim).request(
        CHAT, method="POST", query_string={"api-version": "2024-10-21"}, headers=KEY
    )

    class Left(Exception):
        pass

    with pytest.RaisesGroup(Left):
        async with asked as connection:
            await connection.send(json.dumps({**HELLO, "stream": True}).encode())
            await connection.send_complete()
            for _ in range(4):
                await connection.receive()
            raise Left
    assert sim.limiter("gpt-4o").tally().served_tokens == 8 + 2


async def test_faults_are_switched_over_http() -> None:
    sim = resource()
    asked = client(sim)
    made = await asked.post(
        "/simulator/faults", **LOOPBACK, json={"kind": "status", "status": 503, "calls": 5}
    )
    assert (made.status_code, await made.get_json()) == (201, {"number": 1})
    assert (await asked.post(SURFACES[0][0], headers=KEY, json=HELLO)).status_code == 503
    listed = (await (await asked.get("/simulator/faults", **LOOPBACK)).get_json())["faults"]
    assert [(fault["number"], fault["calls_left"], fault["status"]) for fault in listed] == [
        (1, 4, 503)
    ]
    assert (await asked.delete("/simulator/faults/1", **LOOPBACK)).status_code == 200
    assert (await asked.post(SURFACES[0][0], headers=KEY, json=HELLO)).status_code == 200
    sim.faults.inject(Fault(kind="hang"))
    assert await (await asked.delete("/simulator/faults", **LOOPBACK)).get_json() == {"faults": []}


async def test_a_fault_that_is_wrong_is_refused_with_the_field_named() -> None:
    answer = await client(resource()).post(
        "/simulator/faults", **LOOPBACK, json={"kind": "cut", "calls": 0}
    )
    assert answer.status_code == 422
    assert (await answer.get_json())["error"][0]["loc"] == ["calls"]


async def test_statistics_show_what_was_let_through() -> None:
    asked = client(resource())
    await asked.post(SURFACES[0][0], headers=KEY, json={**HELLO, "max_tokens": 5})
    body = await (await asked.get("/simulator/statistics", **LOOPBACK)).get_json()
    assert body["statuses"] == {"200": 1}
    assert body["deployments"]["gpt-4o"]["admitted"] == 1
    assert body["deployments"]["gpt-4o"]["served_tokens"] == 13


@pytest.mark.parametrize(
    ("address", "control_key", "given", "status"),
    [
        (None, None, None, 403),
        ("127.0.0.1", None, None, 200),
        ("::1", None, None, 200),
        ("192.0.2.7", None, None, 403),
        ("nonsense", None, None, 403),
        ("127.0.0.1", "secret", None, 403),
        ("127.0.0.1", "secret", "wrong", 403),
        ("192.0.2.7", "secret", "secret", 200),
    ],
)
async def test_who_may_use_the_controls(
    address: str | None, control_key: str | None, given: str | None, status: int
) -> None:
    app = create_app(resource(), control_key=control_key)
    headers = {} if given is None else {"x-simulator-key": given}
    scope: dict[str, Any] = {"client": (address, 1234)} if address else {}
    for path in ("/simulator/faults", "/simulator/statistics"):
        answer = await app.test_client().get(path, headers=headers, scope_base=scope)
        assert answer.status_code == status
    answer = await app.test_client().delete(
        "/simulator/faults/1", headers=headers, scope_base=scope
    )
    assert answer.status_code == status
