"""Whatever a client sends, the service answers as its own API description says.

Schemathesis makes requests from the served OpenAPI document, right ones and wrong ones; they go
over a real socket to the whole service in front of a simulated resource. Nothing is spared:
instances are deleted, logging is turned down, data are migrated.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.front.openapi import document
from proxy.server.limits import Limits
from proxy.server.listen import open_listeners
from proxy.server.server import Server
from proxy.service import assembled
from proxy.settings import load_settings
from proxy.simulator.demo import simulated_resource
from proxy.simulator.deployment import INSTANT
from proxy.simulator.resource import DEFAULT_KEY
from proxy.simulator.serving import serve_resource

schemathesis = pytest.importorskip("schemathesis")
requests = pytest.importorskip("requests")  # what schemathesis sends with
described = pytest.importorskip("schemathesis.specs.openapi.checks")

KEY = {"X-Admin-API-Key": "admin-key-for-tests"}
SERVING, CHANGED = "serving", "changed"
"""Two instances: one serves, the other one is what requests about an instance are about."""
MODEL = "gpt-4o"
EXAMPLES = 12
"""Of each operation, about half of them wrong on purpose."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    described.status_code_conformance,
    described.content_type_conformance,
    described.response_headers_conformance,
    described.response_schema_conformance,
]


@dataclass
class Target:
    """A running service, and a connection to it."""

    url: str
    session: Any
    record: dict[str, Any]

    def renew(self) -> None:
        """Both instances are there, and nothing is held against the one that serves."""
        instances = f"{self.url}/admin/instances"
        for name in (SERVING, CHANGED):
            self.session.post(instances, headers=KEY, json={**self.record, "name": name})
        state = {"status": "healthy"}
        self.session.put(f"{instances}/{SERVING}/state", headers=KEY, json=state)


@contextmanager
def in_a_thread(main: Callable[..., Any]) -> Iterator[Any]:
    """Runs `main(report)` on trio in another thread; gives what it reports first."""
    reports: SimpleQueue[Any] = SimpleQueue()
    scope = trio.CancelScope()

    async def run() -> None:
        token = trio.lowlevel.current_trio_token()
        with scope:
            await main(lambda first: reports.put((token, first)))

    def in_thread() -> None:
        try:
            trio.run(run)
        finally:
            reports.put(None)

    thread = threading.Thread(target=in_thread)
    thread.start()
    reported = reports.get()
    assert reported is not None, "it did not start"
    token, first = reported
    try:
        yield first
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join()


async def serve(folder: Path, report: Callable[[Any], None]) -> None:
    resource = simulated_resource("r", [MODEL], tpm=10_000_000, latency=INSTANT, seed=1)
    service_settings = load_settings(
        {
            "INSTANCE_CONFIG_FILE": str(folder / "configs.json"),
            "INSTANCE_STATE_FILE": str(folder / "states.json"),
            "INSTANCE_DATA_FILE": str(folder / "data.json"),
            "ADMIN_API_KEY": KEY["X-Admin-API-Key"],
            "MAX_QUEUE_WAIT_SECONDS": "0",
        }
    )
    async with trio.open_nursery() as nursery:
        upstream = await nursery.start(serve_resource, resource, "127.0.0.1", 0)
        async with assembled(service_settings) as service:
            listeners = await open_listeners("127.0.0.1", 0, backlog=10)
            server = Server(service.exchange, service.load_app, limits=Limits())
            async with trio.open_nursery() as serving:
                urls = await serving.start(server.run, listeners)
                record = {
                    "api_key": DEFAULT_KEY,
                    "api_base": upstream,
                    "api_version": "2025-04-01-preview",
                    "supported_models": [MODEL],
                }
                report((urls[0], record))
                await trio.sleep_forever()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with (
        in_a_thread(partial(serve, folder)) as (url, record),
        requests.Session() as session,
    ):
        yield Target(url, session, record)


SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(document())))
OPERATIONS = {
    operation.label: operation
    for operation in (result.ok() for result in SCHEMA.get_all_operations())
    # The data plane has more addresses, all leading to the same operations.
    if not re.match(r"/openai/(?!deployments/)", operation.path)
}


def about_what_is_there(case: Any) -> None:
    """Makes a request one that gets beyond the question whether there is such a thing."""
    path = case.path_parameters or {}
    for parameter, value in (("name", CHANGED), ("deployment", MODEL), ("model", MODEL)):
        if parameter in path:
            path[parameter] = value
    if "data plane" in (case.operation.tags or ()) and isinstance(case.body, dict):
        case.body["model"] = MODEL


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_as_described(label: str, target: Target) -> None:
    modes = schemathesis.GenerationMode
    operation = OPERATIONS[label]
    cases = operation.as_strategy(modes.POSITIVE) | operation.as_strategy(modes.NEGATIVE)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, there=st.booleans())
    def check(case: Any, there: bool) -> None:
        checks = [*CHECKS, described.negative_data_rejection]
        if there:  # what was wrong may be right then
            target.renew()
            about_what_is_there(case)
            checks = CHECKS
        case.call_and_validate(
            base_url=target.url, session=target.session, headers=KEY, checks=checks
        )

    check()


def test_an_answer_that_is_not_described_is_noticed(target: Target) -> None:
    """The checks can fail: here, because the description lacks what is answered."""
    description = json.loads(json.dumps(document()))
    answers = description["paths"]["/readyz"]["get"]["responses"]
    answers["418"] = answers.pop("200")
    target.renew()
    schema = schemathesis.openapi.from_dict(description)
    case = schema["/readyz"]["GET"].Case()
    with pytest.raises(BaseExceptionGroup) as found:
        case.call_and_validate(base_url=target.url, session=target.session, checks=CHECKS)
    assert "Undocumented status code" in str(found.value.exceptions)
