"""The official SDK, against the whole service: as against the real thing."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from typing import Any

import httpx
import openai
import pytest
import trio
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from sdk_warnings import SDK_WARNINGS
from served import ADMIN_KEY
from simulated_service import CLIENT_KEY, Running, Start

from proxy.simulator.faults import Fault

pytestmark = SDK_WARNINGS

MESSAGES: Any = [{"role": "user", "content": "Hello!"}]


def openai_client(running: Running) -> OpenAI:
    return OpenAI(base_url=f"{running.url}/v1", api_key=CLIENT_KEY, max_retries=0)


def azure_client(running: Running) -> AzureOpenAI:
    return AzureOpenAI(
        azure_endpoint=running.url,
        api_key=CLIENT_KEY,
        api_version="2024-10-21",
        max_retries=0,
    )


def async_clients(running: Running) -> list[AsyncOpenAI]:
    return [
        AsyncOpenAI(base_url=f"{running.url}/openai/v1", api_key=CLIENT_KEY, max_retries=0),
        AsyncAzureOpenAI(
            azure_endpoint=running.url,
            api_key=CLIENT_KEY,
            api_version="2024-10-21",
            max_retries=0,
        ),
    ]


@pytest.mark.parametrize("make", [openai_client, azure_client])
async def test_the_sync_clients(start: Start, make: Any) -> None:
    async with start(100_000) as running:

        def talk() -> None:
            with make(running) as client:
                whole = client.chat.completions.create(
                    model="gpt-4o", messages=MESSAGES, max_tokens=5
                )
                assert whole.usage
                assert whole.usage.completion_tokens == 5
                streamed = client.chat.completions.create(
                    model="gpt-4o", messages=MESSAGES, max_tokens=5, stream=True
                )
                chunks = list(streamed)
                assert all(chunk.usage is None for chunk in chunks)
                text = "".join(
                    choice.delta.content or "" for chunk in chunks for choice in chunk.choices
                )
                assert len(text.split()) == 5
                models = [model.id for model in client.models.list()]
                assert "gpt-4o" in models
                assert client.models.retrieve("gpt-4o").id == "gpt-4o"

        await trio.to_thread.run_sync(talk)


async def test_the_async_clients_for_every_operation(start: Start) -> None:
    async with start(1_000_000) as running:
        for client in async_clients(running):
            async with client:
                chat = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
                assert chat.choices[0].message.content
                with_usage = await client.chat.completions.create(
                    model="gpt-4o",
                    messages=MESSAGES,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                assert [chunk.usage async for chunk in with_usage][-1] is not None
                old = await client.completions.create(
                    model="gpt-35-turbo-instruct", prompt="Hello", max_tokens=4
                )
                assert old.choices[0].text
                embeddings = await client.embeddings.create(
                    model="text-embedding-3-small", input=["one", "two"]
                )
                assert len(embeddings.data) == 2
                response = await client.responses.create(model="gpt-4o", input="Hello")
                assert response.output_text
                async with client.responses.stream(model="gpt-4o", input="Hello") as events:
                    types = [event.type async for event in events]
                assert types[-1] == "response.completed"
                image = await client.images.generate(model="dall-e-3", prompt="a cat")
                assert image.data
                edited = await client.images.edit(
                    model="dall-e-3", image=("a.png", b"\x89PNG" * 1000), prompt="a dog"
                )
                assert edited.data
                spoken = await client.audio.speech.create(
                    model="tts-1", voice="alloy", input="Hello"
                )
                assert await spoken.aread()
                heard = await client.audio.transcriptions.create(
                    model="whisper-1", file=("a.mp3", b"x" * 3_000_000)
                )
                assert heard.text
                translated = await client.audio.translations.create(
                    model="whisper-1", file=("a.mp3", b"x" * 1000)
                )
                assert translated.text
                moderated = await client.moderations.create(
                    model="omni-moderation-latest", input="Hello"
                )
                assert moderated.results


async def test_errors_are_the_sdks_own(start: Start) -> None:
    async with start(1000) as running:
        async with AsyncOpenAI(
            base_url=f"{running.url}/v1", api_key=CLIENT_KEY, max_retries=0
        ) as client:
            with pytest.raises(openai.NotFoundError) as unknown:
                await client.chat.completions.create(model="nope", messages=MESSAGES)
            assert unknown.value.code == "model_not_found"
            with pytest.raises(openai.RateLimitError) as too_large:
                await client.chat.completions.create(
                    model="gpt-4o", messages=MESSAGES, max_tokens=5000
                )
            assert too_large.value.response.headers["x-should-retry"] == "false"
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(
                    model="gpt-4o", messages=MESSAGES, max_tokens=0
                )
        async with AsyncOpenAI(
            base_url=f"{running.url}/v1", api_key="wrong", max_retries=0
        ) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


async def test_raw_and_streamed_responses(start: Start) -> None:
    async with start(100_000) as running:

        def talk() -> None:
            with openai_client(running) as client:
                completions = client.chat.completions
                ask: Any = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 5}
                raw = completions.with_raw_response.create(**ask)
                assert raw.request_id == raw.headers["x-request-id"]
                assert raw.headers["x-proxy-instance"] == "r0"
                assert raw.parse().usage.completion_tokens == 5
                with completions.with_streaming_response.create(**ask) as whole:
                    assert json.loads(b"".join(whole.iter_bytes()))["usage"]
                with completions.with_streaming_response.create(**ask, stream=True) as lines:
                    said = [line for line in lines.iter_lines() if line]
                assert said[-1] == "data: [DONE]"
                with client.audio.speech.with_streaming_response.create(
                    model="tts-1", voice="alloy", input="Hello"
                ) as spoken:
                    assert spoken.read()

        await trio.to_thread.run_sync(talk)


async def test_the_sdk_tries_again_after_a_failure(start: Start) -> None:
    async with start(100_000, retry_count=0) as running:
        running.resources[0].faults.inject(Fault(kind="status", status=500, calls=1))

        def talk() -> None:
            with openai_client(running).with_options(max_retries=2) as client:
                raw = client.chat.completions.with_raw_response.create(
                    model="gpt-4o", messages=MESSAGES
                )
                assert (raw.status_code, raw.retries_taken) == (200, 1)

        await trio.to_thread.run_sync(talk)


@pytest.mark.parametrize("how", ["break", "timeout", "cancel"])
async def test_a_stream_that_is_given_up_ends_everywhere(start: Start, how: str) -> None:
    async with start(100_000) as running, httpx.AsyncClient(base_url=running.url) as http:
        running.resources[0].faults.inject(Fault(kind="hang_in_body", after_events=3))
        client = AsyncOpenAI(
            base_url=f"{running.url}/v1",
            api_key=CLIENT_KEY,
            max_retries=0,
            timeout=0.3 if how == "timeout" else 30,
        )
        async with client:
            with trio.move_on_after(0.3 if how == "cancel" else 30) as scope:
                async with await client.chat.completions.create(
                    model="gpt-4o", messages=MESSAGES, stream=True
                ) as stream:
                    expected = pytest.raises(openai.APITimeoutError)
                    with expected if how == "timeout" else nullcontext():
                        await read(stream, 2 if how == "break" else math.inf)
            assert scope.cancelled_caught == (how == "cancel")
        with trio.fail_after(5):
            while await leases(http) > 0:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.01)


async def read(stream: Any, chunks: float) -> None:
    async for _ in stream:
        chunks -= 1
        if not chunks:
            return


async def leases(http: httpx.AsyncClient) -> float:
    """Those of the first instance that are open."""
    page = (await http.get("/metrics", headers={"X-Admin-API-Key": ADMIN_KEY})).text
    [line] = [line for line in page.splitlines() if "instance_leases{" in line]
    return float(line.rpartition(" ")[2])


async def test_a_configuration_change_takes_effect_on_the_next_request(start: Start) -> None:
    async with start(100_000, 100_000) as running, httpx.AsyncClient(base_url=running.url) as http:
        admin = {"X-Admin-API-Key": ADMIN_KEY}
        chat = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 3}
        key = {"api-key": CLIENT_KEY}

        async def served_by() -> str:
            answer = await http.post("/v1/chat/completions", json=chat, headers=key)
            assert answer.status_code == 200, answer.text
            return answer.headers["x-proxy-instance"]

        async def put(name: str, **fields: Any) -> None:
            answer = await http.put(f"/admin/instances/{name}/config", json=fields, headers=admin)
            assert answer.status_code == 200, answer.text

        assert await served_by() == "r0"
        await put("r0", enabled=False)
        assert await served_by() == "r1"
        await put("r0", enabled=True, priority=5)
        assert await served_by() == "r1"
        await put("r1", api_key="wrong-key-0123456789")
        assert await served_by() == "r0"
        listed = (await http.get("/admin/instances", headers=admin)).json()
        assert listed["instances"]["r1"]["state"]["status"] == "error"
        assert "wrong-key" not in json.dumps(listed)
        answer = await http.delete("/admin/instances/r0", headers=admin)
        assert answer.status_code == 200
        refused = await http.post("/v1/chat/completions", json=chat, headers=key)
        assert refused.status_code == 503
