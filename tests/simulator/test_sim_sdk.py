"""The official SDK against simulated resources on real sockets, and what breaks there."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import trio
from simulator_calls import CHAT, deployment, resource, sse_events

from proxy.simulator.faults import Fault
from proxy.simulator.limiter import Limits
from proxy.simulator.serving import serve_resource
from proxy.simulator.text import answer_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.simulator.resource import Resource

# The SDK leaves its generators to the garbage collector, and calls an operation deprecated.
pytestmark = [
    pytest.mark.filterwarnings(
        r"ignore:Async generator '(openai|httpx2|httpcore2)\.:ResourceWarning"
    ),
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]

KEY = "simulated-key"
ASK: Any = [{"role": "user", "content": "hello"}]
PIECES = {"metadata": {"simulated_output_tokens": "5"}}


@asynccontextmanager
async def served(sim: Resource) -> AsyncIterator[str]:
    """The URL of `sim` on a free port of this machine."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_resource, sim, "127.0.0.1", 0)
        yield url
        nursery.cancel_scope.cancel()


def everything() -> Resource:
    names = (
        *("gpt-4o", "o3", "text-embedding-3-small", "gpt-image-1"),
        *("tts-1", "whisper-1", "omni-moderation-latest"),
    )
    return resource(*(deployment(name) for name in names))


def dated(url: str) -> openai.AsyncAzureOpenAI:
    return openai.AsyncAzureOpenAI(
        azure_endpoint=url, api_key=KEY, api_version="2025-04-01-preview", max_retries=0
    )


def undated(url: str, path: str = "/openai/v1") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url + path, api_key=KEY, max_retries=0)


@pytest.mark.parametrize("surface", ["dated", "/openai/v1", "/v1"])
async def test_text_operations_of_the_async_client(surface: str) -> None:
    async with served(everything()) as url:
        client = dated(url) if surface == "dated" else undated(url, surface)
        async with client:
            chat = await client.chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=5)
            assert chat.choices[0].message.content == answer_text(5)
            assert chat.usage is not None
            assert chat.usage.completion_tokens == 5
            completion = await client.completions.create(
                model="gpt-4o", prompt="hello", max_tokens=4
            )
            assert completion.choices[0].text == answer_text(4)
            embeddings = await client.embeddings.create(
                model="text-embedding-3-small", input=["one", "two"], dimensions=64
            )
            assert [len(entry.embedding) for entry in embeddings.data] == [64, 64]
            assert isinstance(embeddings.data[0].embedding[0], float)
            response = await client.responses.create(model="gpt-4o", input="hello", **PIECES)
            assert response.output_text == answer_text(5)
            assert {model.id async for model in client.models.list()} >= {"gpt-4o", "o3"}


@pytest.mark.parametrize("surface", ["dated", "/openai/v1", "/v1"])
async def test_streams_of_the_async_client(surface: str) -> None:
    async with served(everything()) as url:
        client = dated(url) if surface == "dated" else undated(url, surface)
        async with client:
            stream = await client.chat.completions.create(
                model="gpt-4o",
                messages=ASK,
                max_tokens=5,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
            parts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
            assert "".join(parts) == answer_text(5)
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == 5
            events = await client.responses.create(
                model="gpt-4o", input="hello", stream=True, **PIECES
            )
            last = [event async for event in events][-1]
            assert last.type == "response.completed"
            assert last.response.output_text == answer_text(5)
            completions = await client.completions.create(
                model="gpt-4o", prompt="hello", max_tokens=3, stream=True
            )
            texts = [choice.text async for chunk in completions for choice in chunk.choices]
            assert "".join(texts) == answer_text(3)


def use_everything_else(url: str) -> None:
    """Blocks; what is left of the API, with the synchronous clients."""
    picture, sound = ("a.png", b"\x89PNG\r\n\x00"), ("a.wav", bytes(4000))
    with (
        openai.OpenAI(base_url=f"{url}/openai/v1", api_key=KEY, max_retries=0) as v1,
        openai.AzureOpenAI(
            azure_endpoint=url, api_key=KEY, api_version="2024-10-21", max_retries=0
        ) as azure,
    ):
        for client in (v1, azure):
            images = client.images
            made = images.generate(model="gpt-image-1", prompt="x").data or []
            edited = images.edit(model="gpt-image-1", prompt="x", image=picture).data or []
            assert made[0].b64_json == edited[0].b64_json is not None
            audio = client.audio
            speech = audio.speech.create(model="tts-1", voice="alloy", input="hey")
            assert speech.read() == bytes(3 * 960)
            assert audio.transcriptions.create(model="whisper-1", file=sound).text
            assert audio.translations.create(model="whisper-1", file=sound).text
            stored = client.files.create(file=("a.jsonl", b'{"custom_id":"a"}\n'), purpose="batch")
            assert stored.id in {file.id for file in client.files.list()}
            assert client.files.content(stored.id).read() == b'{"custom_id":"a"}\n'
            batch = client.batches.create(
                input_file_id=stored.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
            )
            assert client.batches.cancel(batch.id).status == "cancelled"
            assert client.files.delete(stored.id).deleted
            assert client.models.retrieve("gpt-4o").id == "gpt-4o"
        verdict = v1.moderations.create(model="omni-moderation-latest", input="hello")
        assert verdict.results[0].flagged is False
        first = v1.responses.create(model="o3", input="hello")
        second = v1.responses.create(model="o3", input="on", previous_response_id=first.id)
        assert v1.responses.retrieve(second.id).previous_response_id == first.id
        assert v1.responses.input_items.list(second.id).data
        v1.responses.delete(first.id)


async def test_everything_else_with_the_sync_clients() -> None:
    async with served(everything()) as url:
        await trio.to_thread.run_sync(use_everything_else, url)


async def test_errors_reach_the_client_as_the_sdk_knows_them() -> None:
    sim = resource(deployment(limits=Limits(tpm=100)))
    async with served(sim) as url, dated(url) as client:
        chats = client.chat.completions
        with pytest.raises(openai.NotFoundError) as missing:
            await chats.create(model="other", messages=ASK)
        assert missing.value.code == "DeploymentNotFound"
        with pytest.raises(openai.BadRequestError) as wrong:
            await chats.create(model="gpt-4o", messages=[])
        assert wrong.value.param == "messages"
        await chats.create(model="gpt-4o", messages=ASK, max_tokens=80)
        with pytest.raises(openai.RateLimitError) as refused:
            await chats.create(model="gpt-4o", messages=ASK, max_tokens=80)
        assert float(refused.value.response.headers["retry-after-ms"]) > 0
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").chat.completions.create(
                model="gpt-4o", messages=ASK
            )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault", [Fault(kind="refuse"), Fault(kind="cut", after_events=2)], ids=["refuse", "cut"]
)
async def test_broken_connections_break(fault: Fault, stream: bool) -> None:
    sim = resource()
    sim.faults.inject(fault)
    body = {"messages": ASK, "stream": stream}
    async with served(sim) as url, httpx.AsyncClient() as client:
        path = f"{url}{CHAT}?api-version=2024-10-21"
        received = b""
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", path, headers={"api-key": KEY}, json=body) as response:
                async for chunk in response.aiter_raw():
                    received += chunk
        sim.faults.clear()
        after = await client.post(path, headers={"api-key": KEY}, json=body)
        assert after.status_code == 200
    if fault.kind == "refuse":
        assert received == b""
    elif stream:
        assert [data["choices"][0]["delta"]["role"] for _, data in sse_events(received)[1:]] == [
            "assistant"
        ]


async def test_a_hanging_answer_hangs_until_the_client_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sim = resource()
    sim.faults.inject(Fault(kind="hang_in_body", after_events=1))
    limiter = sim.start(trio.current_time()).limiters["gpt-4o"]
    settle, settled = limiter.settle, trio.Event()

    def settle_and_tell(*args: Any) -> None:
        settle(*args)
        settled.set()

    monkeypatch.setattr(limiter, "settle", settle_and_tell)
    async with served(sim) as url, httpx.AsyncClient(timeout=httpx.Timeout(0.2)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                f"{url}{CHAT}?api-version=2024-10-21",
                headers={"api-key": KEY},
                json={"messages": ASK, "stream": True},
            )
        with trio.fail_after(5):
            await settled.wait()


async def test_faults_and_counters_over_a_real_connection() -> None:
    sim = resource()
    async with served(sim) as url, httpx.AsyncClient(base_url=url) as client:
        made = await client.post("/simulator/faults", json={"kind": "status", "calls": 1})
        assert made.status_code == 201
        counted = (await client.get("/simulator/statistics")).json()
        assert counted["deployments"]["gpt-4o"]["admitted"] == 0


async def test_a_port_in_use_is_a_plain_error() -> None:
    async with served(resource()) as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            await serve_resource(resource(), "127.0.0.1", port)
