"""What lives where it was made, with the official SDK, over two resources and a restart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio
from openai import AsyncAzureOpenAI, AsyncOpenAI
from sdk_warnings import SDK_WARNINGS
from served import ADMIN_KEY, Listener, configure, served
from simulated_service import CLIENT_KEY, Running, Start, simulated_instances

pytestmark = SDK_WARNINGS
LINES = b"".join(
    json.dumps({"custom_id": str(n), "method": "POST", "url": "/v1/responses"}).encode() + b"\n"
    for n in range(3)
)


def clients(url: str) -> list[AsyncOpenAI]:
    return [
        AsyncOpenAI(base_url=f"{url}/v1", api_key=CLIENT_KEY, max_retries=0),
        AsyncOpenAI(base_url=f"{url}/openai/v1", api_key=CLIENT_KEY, max_retries=0),
        AsyncAzureOpenAI(
            azure_endpoint=url, api_key=CLIENT_KEY, api_version="2025-04-01-preview", max_retries=0
        ),
    ]


async def prefer(url: str, name: str) -> None:
    """From now on the strategy likes `name` best."""
    async with httpx.AsyncClient(base_url=url, headers={"X-Admin-API-Key": ADMIN_KEY}) as http:
        for each in ("r0", "r1"):
            answer = await http.put(
                f"/admin/instances/{each}/config", json={"priority": int(each != name)}
            )
            assert answer.status_code == 200


async def test_a_conversation(start: Start) -> None:
    async with start(10**6, 10**6) as running:
        for client in clients(running.url):
            async with client:
                await prefer(running.url, "r0")
                first = await client.responses.create(model="gpt-4o", input="Hello")
                await prefer(running.url, "r1")
                raw = await client.responses.with_raw_response.create(
                    model="gpt-4o", input="And?", previous_response_id=first.id
                )
                assert raw.headers["x-proxy-instance"] == "r0"
                second = raw.parse()
                assert second.previous_response_id == first.id
                async with client.responses.stream(
                    model="gpt-4o", input="Go on", previous_response_id=second.id
                ) as events:
                    third = await events.get_final_response()
                read = await client.responses.retrieve(third.id)
                assert read.output_text == third.output_text
                items = await client.responses.input_items.list(third.id)
                assert len(items.data) == 1
                types = [
                    event.type
                    async for event in await client.responses.retrieve(third.id, stream=True)
                ]
                assert types[-1] == "response.completed"
                await client.responses.delete(third.id)
                with pytest.raises(openai.NotFoundError):
                    await client.responses.retrieve(third.id)
                later = await client.responses.create(
                    model="gpt-4o", input="Later", background=True, previous_response_id=first.id
                )
                cancelled = await client.responses.cancel(later.id)
                assert cancelled.id == later.id


async def test_reasoning_that_only_its_resource_can_read(start: Start) -> None:
    async with start(10**6, 10**6) as running, clients(running.url)[0] as client:
        options: Any = {"include": ["reasoning.encrypted_content"], "store": False}
        first = await client.responses.create(model="gpt-4o", input="Hello", **options)
        await prefer(running.url, "r1")
        history: Any = [item.model_dump(exclude_none=True) for item in first.output]
        second = await client.responses.create(
            model="gpt-4o", input=[*history, {"role": "user", "content": "And?"}], **options
        )
        assert second.output_text


async def test_files_and_batches(start: Start) -> None:
    async with start(10**6, 10**6) as running:
        for client in clients(running.url):
            async with client:
                await prefer(running.url, "r0")
                here = await client.files.create(file=("in.jsonl", LINES), purpose="batch")
                await prefer(running.url, "r1")
                there = await client.files.create(file=("in.jsonl", LINES), purpose="batch")
                batch = await client.batches.create(
                    input_file_id=here.id, endpoint="/v1/responses", completion_window="24h"
                )
                assert (await client.batches.retrieve(batch.id)).input_file_id == here.id
                assert {here.id, there.id} <= {file.id async for file in client.files.list()}
                assert [file.id async for file in client.files.list(limit=1)][:1] != []
                assert batch.id in [each.id async for each in client.batches.list(limit=1)]
                assert (await client.files.retrieve(here.id)).bytes == len(LINES)
                assert (await client.files.content(here.id)).content == LINES
                assert (await client.batches.cancel(batch.id)).status == "cancelled"
                for file in (here, there):
                    assert (await client.files.delete(file.id)).deleted


@asynccontextmanager
async def twice(folder: Path, listener: Listener) -> AsyncIterator[Any]:
    """Two resources that outlive the services in front of them; each service is new."""
    async with trio.open_nursery() as nursery:
        _, configs = await simulated_instances(nursery, 10**6, 10**6)
        configure(folder, configs)

        @asynccontextmanager
        async def service() -> AsyncIterator[Running]:
            async with served(folder, {"PROXY_API_KEYS": CLIENT_KEY}, listener) as (_, url):
                yield Running(url, [])

        yield service
        nursery.cancel_scope.cancel()


async def test_a_restart_forgets_nothing(tmp_path: Path, listener: Listener) -> None:
    async with twice(tmp_path, listener) as service:
        async with service() as running, clients(running.url)[0] as client:
            response = await client.responses.create(model="gpt-4o", input="Hello")
            file = await client.files.create(file=("in.jsonl", LINES), purpose="batch")
        lines = (tmp_path / "states.json.owners.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"id": f"responses/{response.id}", "instance": "r0"},
            {"id": f"files/{file.id}", "instance": "r0"},
        ]
        async with service() as running, clients(running.url)[0] as client:
            await prefer(running.url, "r1")
            raw = await client.responses.with_raw_response.create(
                model="gpt-4o", input="And?", previous_response_id=response.id
            )
            assert raw.headers["x-proxy-instance"] == "r0"
            assert (await client.files.content(file.id)).content == LINES
        # Without its memory it asks.
        (tmp_path / "states.json.owners.jsonl").unlink()
        async with service() as running, clients(running.url)[0] as client:
            assert (await client.responses.retrieve(response.id)).id == response.id
        assert f'"responses/{response.id}"' in (tmp_path / "states.json.owners.jsonl").read_text()
        async with service() as running, clients(running.url)[0] as client:
            async with httpx.AsyncClient(headers={"X-Admin-API-Key": ADMIN_KEY}) as http:
                await http.delete(f"{running.url}/admin/instances/r0")
            with pytest.raises(openai.NotFoundError) as gone:
                await client.responses.retrieve(response.id)
            assert gone.value.code == "instance_removed"
            assert f"`{response.id}` was made by the instance `r0`" in str(gone.value)
