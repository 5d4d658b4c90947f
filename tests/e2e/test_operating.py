"""What an operator does with a running service: migrates, edits the file by hand, reads metrics."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import sys
import weakref
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from actors.models import InstanceState
from actors.store import ConfigStore, StateStore
from proxy.service import GC_THRESHOLDS, serve_with_stores
from proxy.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
KEY = "admin-key-for-tests"
RECORD = {
    "api_key": "k-0123456789abcdef",
    "api_base": "http://127.0.0.1:9",
    "supported_models": ["gpt-4"],
}


class Operator:
    """Somebody with a shell in the folder of the files, and the admin key."""

    def __init__(self, client: httpx.AsyncClient, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.configs = folder / "configs.json"

    def write(self, **records: Any) -> None:
        self.configs.write_text(json.dumps(records))

    async def send(self, method: str, path: str, **request: Any) -> tuple[int, Any]:
        response = await self.client.request(method, path, **request)
        return response.status_code, response.json()

    async def names(self) -> list[str]:
        _, answer = await self.send("GET", "/admin/instances")
        return list(answer["instances"])

    async def until_names_are(self, *names: str) -> None:
        """Fails when that takes ten seconds; nothing says when an edit has been noticed."""
        with trio.fail_after(10):
            while await self.names() != list(names):  # noqa: ASYNC110 - it is another process's view
                await trio.sleep(0.02)


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    async with serving(tmp_path) as operator:
        yield operator


@asynccontextmanager
async def serving(folder: Path, **environ: str) -> AsyncIterator[Operator]:
    settings = load_settings(
        {
            "INSTANCE_CONFIG_FILE": str(folder / "configs.json"),
            "INSTANCE_STATE_FILE": str(folder / "states.json"),
            "INSTANCE_DATA_FILE": str(folder / "instance_data.json"),
            "ADMIN_API_KEY": KEY,
            "PORT": "0",
            "MAX_QUEUE_WAIT_SECONDS": "0",
            **environ,
        }
    )
    (folder / "configs.json").write_text(json.dumps({"one": RECORD}))
    urls: list[str] = []
    ready = trio.Event()

    def on_ready(served: list[str]) -> None:
        urls.extend(served)
        ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_with_stores, settings, on_ready)
        await ready.wait()
        headers = {"X-Admin-API-Key": KEY}
        async with httpx.AsyncClient(base_url=urls[0], headers=headers) as client:
            yield Operator(client, folder)
        nursery.cancel_scope.cancel()


async def test_the_collector_leaves_alone_what_stays_for_good(tmp_path: Path) -> None:
    before = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    gc.disable()  # so that only the service itself can have collected
    try:
        cycle = type("Garbage", (), {})()
        cycle.itself = cycle
        garbage = weakref.ref(cycle)
        del cycle
        async with serving(tmp_path):
            assert gc.get_threshold() == GC_THRESHOLDS
            assert gc.get_freeze_count() > 10_000
            assert garbage() is None, "what is frozen was collected first"
    finally:
        gc.enable()
        gc.unfreeze()
        gc.set_threshold(*before)


async def test_an_edit_is_in_force_after_a_hangup_signal(operator: Operator) -> None:
    operator.write(one=RECORD, two=RECORD)
    os.kill(os.getpid(), signal.SIGHUP)
    await operator.until_names_are("one", "two")


async def test_an_edit_is_noticed_without_being_told(operator: Operator) -> None:
    operator.write(two=RECORD)
    await operator.until_names_are("two")


async def test_a_broken_edit_survives_until_it_is_mended_or_discarded(operator: Operator) -> None:
    operator.configs.write_text(broken := '{"one": {"api_key": }')
    for method, path, body in (
        ("POST", "/admin/config/reload", None),
        ("PUT", "/admin/instances/one/config", {"priority": 5}),
        ("DELETE", "/admin/instances/one", None),
    ):
        status, answer = await operator.send(method, path, json=body)
        assert status == 409
        assert answer["errors"][0]["field"] == "line 1, column 21"
    assert operator.configs.read_text() == broken
    assert await operator.names() == ["one"]

    status, _ = await operator.send("POST", "/admin/config/reload?discard=true")
    assert status == 200
    assert list(ConfigStore(operator.configs).load()) == ["one"]
    [kept] = operator.folder.glob("configs.json.discarded-*")
    assert kept.read_text() == broken
    status, _ = await operator.send("PUT", "/admin/instances/one/config", json={"priority": 5})
    assert status == 200


async def test_a_file_that_is_gone_removes_no_instance(operator: Operator) -> None:
    operator.configs.unlink()
    status, answer = await operator.send("POST", "/admin/config/reload")
    assert status == 409
    assert "gone" in answer["message"]
    assert await operator.names() == ["one"]


async def test_a_migration_is_on_disk_when_it_is_answered(operator: Operator) -> None:
    document = {"instances": [{**RECORD, "name": "old", "stats": {"total_requests": 9}}]}
    (operator.folder / "instance_data.json").write_text(json.dumps(document))

    status, answer = await operator.send("POST", "/admin/instances/migrate")

    assert (status, answer["migrated"]) == (200, ["old"])
    assert list(ConfigStore(operator.configs).load()) == ["one", "old"]
    states, _ = StateStore(operator.folder / "states.json").load()
    assert states["old"].total_requests == 9
    status, state = await operator.send("GET", "/admin/instances/new/old/state",
                                        follow_redirects=True)  # fmt: skip
    assert (status, state["total_requests"]) == (200, 9)


async def test_the_endpoint_and_the_command_do_the_same(tmp_path: Path) -> None:
    record = {**RECORD, "enabled": "no", "last_used": 1716000000, "stats": {"total_requests": 9}}
    data = json.dumps({"instances": [{**record, "name": "old"}, {"name": "bad"}]})
    folders = [tmp_path / "endpoint", tmp_path / "command"]
    for folder in folders:
        folder.mkdir()
        (folder / "instance_data.json").write_text(data)
    async with serving(folders[0]) as operator:
        _, answer = await operator.send("POST", "/admin/instances/migrate")
        assert list(answer["skipped"]) == ["bad"]
        assert (await operator.send("DELETE", "/admin/instances/one"))[0] == 200
    command = [sys.executable, "-P", "-m", "proxy", "migrate", "instance_data.json"]
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "INSTANCE_CONFIG_FILE": "configs.json",
        "INSTANCE_STATE_FILE": "states.json",
    }
    migrated = await trio.run_process(
        command, cwd=folders[1], env=environ, check=False, capture_stdout=True
    )
    assert migrated.returncode == 1  # because of the bad record
    both = [ConfigStore(folder / "configs.json").load() for folder in folders]
    assert both[0] == both[1] != {}
    states = [StateStore(folder / "states.json").load()[0]["old"] for folder in folders]
    fields = set(InstanceState.model_fields)
    assert states[0].model_dump(include=fields) == states[1].model_dump(include=fields)
    for folder in folders:
        [backup] = folder.glob("instance_data.json.backup-*")
        assert backup.read_text() == data


async def test_a_request_shows_in_the_metrics(operator: Operator) -> None:
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "hi"}]}
    answer = await operator.client.post("/v1/chat/completions", json=body)
    assert answer.status_code >= 500  # nobody listens at that address
    wanted = 'openai_proxy_requests_total{instance="one",model="gpt-4",outcome="server_error"'
    text = ""
    with trio.fail_after(10):
        while wanted not in text:
            await trio.sleep(0.02)
            text = (await operator.client.get("/metrics")).text
    assert 'openai_proxy_instance_errors_total{instance="one"}' in text
    assert 'openai_proxy_client_connections{state="active"} 1.0' in text
    assert 'openai_proxy_upstream_connections{instance="one"' in text
    assert RECORD["api_key"] not in text


async def test_a_change_of_state_is_logged_with_the_request_that_caused_it(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "actors")
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "a secret question"}]}
    told: list[dict[str, Any]] = []
    last = ""
    with trio.fail_after(10):
        while not told:
            answer = await operator.client.post("/v1/chat/completions", json=body)
            last = answer.headers["x-request-id"]
            told = [vars(record) for record in caplog.records if hasattr(record, "state")]
    [fields] = told
    assert (fields["instance"], fields["state"]) == ("one", "breaker_open")
    assert fields["request_id"] == last
    assert "connect" in fields["reason"]
    assert not re.search(r"secret|k-0123456789", str(fields))


async def test_a_load_balancer_is_told_before_connections_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, SHUTDOWN_DELAY_SECONDS="1000") as operator:
        assert await operator.send("GET", "/readyz") == (200, {"status": "ready"})
        os.kill(os.getpid(), signal.SIGTERM)
        status, answer = 200, {}
        with trio.fail_after(10):
            while status == 200:
                status, answer = await operator.send("GET", "/readyz")
        assert (status, answer["status"]) == (503, "draining")
        models = await operator.client.get("/v1/models")
        assert models.status_code == 200, "who comes nevertheless is served"
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(10), pytest.raises(httpx.TransportError):
            while True:
                await operator.client.get("/healthz")


async def test_without_a_delay_it_is_over_as_soon_as_requests_are(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with serving(tmp_path) as operator:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(httpx.TransportError):
                while True:
                    await operator.client.get("/healthz")
    states, _ = StateStore(tmp_path / "states.json").load()
    assert set(states) == {"one"}, "the state was saved last"
