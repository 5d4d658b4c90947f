"""Whatever a client sends, the service answers as its own API description says.

Schemathesis makes requests from the served OpenAPI document, right ones and wrong ones; they go
over a real socket to the whole service in front of a simulated resource. Nothing is spared:
instances are deleted, logging is turned down, data are migrated.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.front.openapi import document
from proxy.simulator.resource import DEFAULT_KEY

schemathesis = pytest.importorskip("schemathesis")
requests = pytest.importorskip("requests")  # what schemathesis sends with
described = pytest.importorskip("schemathesis.specs.openapi.checks")

ROOT = Path(__file__).parents[2]
KEY = {"X-Admin-API-Key": "admin-key-for-tests"}
SERVING, CHANGED = "serving", "changed"
"""Two instances: one serves, the other one is what requests about an instance are about."""
MODEL = "gpt-4o"
RECORD = {
    "api_key": DEFAULT_KEY,
    "api_version": "2025-04-01-preview",
    "supported_models": [MODEL],
}
EXAMPLES = 10
"""Of each operation, about half of them wrong on purpose."""
PROGRAM = f"""
import json, pathlib, sys
import trio
from proxy.service import serve_with_stores
from proxy.settings import load_settings
from proxy.simulator.demo import simulated_resource
from proxy.simulator.deployment import INSTANT
from proxy.simulator.serving import serve_resource

async def main():
    folder = pathlib.Path(sys.argv[1])
    settings = load_settings({{
        "INSTANCE_CONFIG_FILE": str(folder / "configs.json"),
        "INSTANCE_STATE_FILE": str(folder / "states.json"),
        "INSTANCE_DATA_FILE": str(folder / "data.json"),
        "ADMIN_API_KEY": "{KEY["X-Admin-API-Key"]}",
        "MAX_QUEUE_WAIT_SECONDS": "0",
        "PORT": "0",
    }})
    resource = simulated_resource("r", ["{MODEL}"], tpm=10_000_000, latency=INSTANT, seed=1)
    async with trio.open_nursery() as nursery:
        upstream = await nursery.start(serve_resource, resource, "127.0.0.1", 0)
        await serve_with_stores(
            settings, lambda urls: print(json.dumps([urls[0], upstream]), flush=True)
        )
        nursery.cancel_scope.cancel()

trio.run(main)
"""
"""Serves in front of a simulated resource, and says where both are."""
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
    upstream: str
    session: Any

    def renew(self) -> None:
        """Both instances are there as at first, and no other; nothing is held against the one that
        serves. A search for an unknown id asks all of them."""
        instances = f"{self.url}/admin/instances"
        present = self.session.get(instances, headers=KEY).json()["instances"]
        for name in present.keys() - {SERVING}:
            self.session.delete(f"{instances}/{quote(name)}", headers=KEY)
        for name in (SERVING, CHANGED):
            record = {"name": name, "api_base": self.upstream, **RECORD}
            self.session.post(instances, headers=KEY, json=record)
        state = {"status": "healthy"}
        self.session.put(f"{instances}/{SERVING}/state", headers=KEY, json=state)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(tmp_path_factory.mktemp("fuzzed"))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "it did not start"
        with requests.Session() as session:
            yield Target(*json.loads(line), session)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


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

    target.renew()
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
