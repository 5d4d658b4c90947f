"""Checks a running service from outside, over HTTP, without leaving anything behind.

Everything is done to instances of its own: disabled, at an address that can't exist, named so that
nobody else has the name. They are deleted whatever happens.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

import httpx
import trio

CONFIG_FIELDS: Final = (
    "name provider_type api_key api_base api_version priority weight max_tpm max_input_tokens "
    "supported_models model_deployments enabled timeout_seconds retry_count"
)
STATE_FIELDS: Final = (
    "name status error_count last_error rate_limited_until current_tpm current_rpm total_requests "
    "successful_requests last_used last_error_time avg_latency_ms utilization_percentage "
    "connection_status health_status"
)
KEY: Final = "check-key-that-opens-nothing-0123"
ROUNDS: Final = 5
"""Updates of each field, one after the other, while the other fields are updated too."""
WORKERS: Final = 16
REQUESTS: Final = 320
"""A second or two of work for the service: enough to see that nothing is lost under load."""
REQUEST_LIMIT_S: Final = 30.0
CHECK_LIMIT_S: Final = 60.0
_ODD_ANSWER: Final = (LookupError, TypeError, ValueError)
"""What comes of an answer that is JSON but not what it should be."""


class Failed(Exception):
    """A check did not find what it should have; the text says what it found."""


@dataclass
class Site:
    """The service, asked with the admin key and without, and what the checks may touch."""

    admin: httpx.AsyncClient
    anyone: httpx.AsyncClient
    prefix: str = field(default_factory=lambda: f"check-{secrets.token_hex(6)}")
    client_key: str = ""

    def name(self, part: str) -> str:
        return f"{self.prefix}-{part}"

    async def ask(
        self, method: str, path: str, document: object = None, *, expect: int = 200
    ) -> dict[str, Any]:
        """The JSON object of the answer. Errors: `Failed` for another status."""
        answer = await self.admin.request(method, path, json=document)
        return _object(answer, f"{method} {path}", expect)

    async def instances(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.ask("GET", "/admin/instances"))["instances"]
        return found

    @asynccontextmanager
    async def instance(self, part: str) -> AsyncIterator[str]:
        """One of our instances; gives its address."""
        await self.ask("POST", "/admin/instances", self.config(part), expect=201)
        address = f"/admin/instances/{self.name(part)}"
        yield address
        await self.ask("DELETE", address)

    def config(self, part: str) -> dict[str, Any]:
        return {
            "name": self.name(part),
            "api_key": KEY,
            "api_base": "https://nowhere.invalid",
            "supported_models": [self.name("model")],
            "enabled": False,
        }

    async def delete_ours(self) -> None:
        """Deletes what a check that failed has left."""
        for name in await self.instances():
            if name.startswith(self.prefix):
                await self.admin.delete(f"/admin/instances/{name}")


Check: TypeAlias = Callable[[Site], Awaitable[None]]


# -- the checks --------------------------------------------------------------------------------


async def lives(site: Site) -> None:
    answer = await site.anyone.get("/healthz")
    require(answer.status_code == 200, f"/healthz answered {answer.status_code}")
    ready = await site.anyone.get("/readyz")
    require(ready.status_code in (200, 503), f"/readyz answered {ready.status_code}")


async def takes_the_admin_key_and_no_other(site: Site) -> None:
    for headers in ({}, {"X-Admin-API-Key": "not-the-key"}):
        for method, path in [("GET", "/admin/instances"), ("DELETE", "/admin/instances/x")]:
            answer = await site.anyone.request(method, path, headers=headers)
            require(answer.status_code == 401, f"{method} {path} answered {answer.status_code}")


async def adds_shows_and_deletes(site: Site) -> None:
    async with site.instance("life") as address:
        name = address.rpartition("/")[2]
        await site.ask("POST", "/admin/instances", site.config("life"), expect=409)
        everything = await site.ask("GET", "/admin/instances")
        require(everything["status"] == "success", "the list has no status")
        require(everything["count"] == len(everything["instances"]), "the count is wrong")
        shown = everything["instances"][name]
        require(set(shown) == {"config", "state"}, f"an instance is shown with {set(shown)}")
        config = await site.ask("GET", f"{address}/config")
        require(config == shown["config"], "the list and the configuration differ")
        given = site.config("life")
        wrong = [key for key in given if key != "api_key" and config[key] != given[key]]
        require(not wrong, f"{wrong} is not what was given")
        require(KEY not in str(everything), "the key is shown")
    for part in ("config", "state"):
        await site.ask("GET", f"{address}/{part}", expect=404)
    await site.ask("DELETE", address, expect=404)


async def merges_changes_and_refuses_wrong_ones(site: Site) -> None:
    async with site.instance("changes") as address:
        before = await site.ask("GET", f"{address}/config")
        await site.ask("PUT", f"{address}/config", {"priority": 50})
        after = await site.ask("GET", f"{address}/config")
        require(after == {**before, "priority": 50}, "another field than priority changed")
        await site.ask("PUT", f"{address}/config", after)
        require(await site.ask("GET", f"{address}/config") == after, "the mask became the key")
        for part, field_name, value in [
            ("config", "name", "other"),
            ("config", "weight", -1),
            ("config", "priority", "high"),
            ("config", "prioritty", 1),
            ("state", "error_count", -1),
            ("state", "status", "fine"),
        ]:
            document = {field_name: value}
            refusal = await site.ask("PUT", f"{address}/{part}", document, expect=422)
            require(field_name in str(refusal["errors"]), f"{field_name} is not named")
        require(await site.ask("GET", f"{address}/config") == after, "a refusal changed something")


async def separates_configuration_and_state(site: Site) -> None:
    async with site.instance("separation") as address:
        config = await site.ask("GET", f"{address}/config")
        state = await site.ask("GET", f"{address}/state")
        require(set(config) == set(CONFIG_FIELDS.split()), "the configuration has other fields")
        require(set(state) == set(STATE_FIELDS.split()), "the state has other fields")
        counters = {"total_requests": 9, "successful_requests": 7, "last_error": "a test"}
        await site.ask("PUT", f"{address}/state", counters)
        require(await site.ask("GET", f"{address}/config") == config, "the state changed it")
        state = await site.ask("GET", f"{address}/state")
        require(counters.items() <= state.items(), "the state is not what was set")
        await site.ask("PUT", f"{address}/config", {"weight": 7, "max_tpm": 12345})
        require(await site.ask("GET", f"{address}/state") == state, "the configuration changed it")
        for part, foreign in [("config", "error_count"), ("state", "weight")]:
            await site.ask("PUT", f"{address}/{part}", {foreign: 1}, expect=422)


async def loses_no_concurrent_update(site: Site) -> None:
    """Each field is counted up by a task of its own, all at once: each ends at its last value."""
    configs = ("priority", "weight", "max_tpm", "max_input_tokens", "retry_count")
    states = ("error_count", "total_requests")

    async def count_up(address: str, name: str) -> None:
        for value in range(1, ROUNDS + 1):
            await site.ask("PUT", address, {name: value})

    async with site.instance("concurrency") as address:
        async with trio.open_nursery() as nursery:
            for name in configs:
                nursery.start_soon(count_up, f"{address}/config", name)
            for name in states:
                nursery.start_soon(count_up, f"{address}/state", name)
        for part, names in (("config", configs), ("state", states)):
            found = await site.ask("GET", f"{address}/{part}")
            lost = [name for name in names if found[name] != ROUNDS]
            require(not lost, f"lost: {lost}")


async def adds_a_name_once_however_many_ask(site: Site) -> None:
    statuses: list[int] = []

    async def add() -> None:
        answer = await site.admin.post("/admin/instances", json=site.config("race"))
        statuses.append(answer.status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(ROUNDS):
            nursery.start_soon(add)
    require(sorted(statuses) == [201] + [409] * (ROUNDS - 1), f"answered {sorted(statuses)}")
    await site.ask("DELETE", f"/admin/instances/{site.name('race')}")


async def stands_a_little_load(site: Site) -> None:
    """Admin API and data plane at once. The model is nobody's, so nothing goes upstream."""
    requests = iter(range(REQUESTS))
    latencies: list[float] = []

    async def work(address: str) -> None:
        for number in requests:
            began = trio.current_time()
            if number % 2:
                await site.ask("GET", f"{address}/state")
            else:
                await _unknown_model(site)
            latencies.append(trio.current_time() - began)

    async with site.instance("load") as address, trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(work, address)
    require(len(latencies) == REQUESTS, f"{len(latencies)} of {REQUESTS} were answered")
    worst = sorted(latencies)[math.ceil(0.99 * REQUESTS) - 1]
    require(worst < REQUEST_LIMIT_S / 10, f"the 99th percentile took {worst:.1f} s")


async def _unknown_model(site: Site) -> None:
    body = {"model": site.name("model"), "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {site.client_key}"} if site.client_key else {}
    answer = await site.anyone.post("/v1/chat/completions", json=body, headers=headers)
    # A service with client keys refuses before it looks at the model.
    expected = (404,) if site.client_key else (401, 404)
    require(answer.status_code in expected, f"the data plane answered {answer.status_code}")
    require("message" in answer.json()["error"], "the error has not the OpenAI shape")


async def answers_at_the_old_addresses(site: Site) -> None:
    async with site.instance("old") as address:
        name = address.rpartition("/")[2]
        for method, path, successor in [
            ("GET", "/admin/instances/new", "/admin/instances"),
            ("POST", "/admin/instances/new", "/admin/instances"),
            ("GET", f"/admin/instances/new/{name}/state", f"{address}/state"),
            ("PUT", f"/admin/instances/new/{name}/config", f"{address}/config"),
        ]:
            answer = await site.admin.request(method, path, json={})
            require(answer.status_code == 308, f"{method} {path} answered {answer.status_code}")
            location = httpx.URL(answer.headers["Location"]).path
            require(location == successor, f"{path} leads to {location}")
            require("Deprecation" in answer.headers, f"{path} has no Deprecation")
            require("successor-version" in answer.headers.get("Link", ""), f"{path} has no Link")


async def converts_the_earlier_systems_data(site: Site) -> None:
    """Dry, so that no backup of the data is made on the service's disk."""
    record = {**site.config("migrated"), "total_requests": 3, "region": "x"}
    for document in ({record["name"]: record}, {"instances": [record]}):
        path = "/admin/instances/migrate?dry_run=true"
        answer = await site.ask("POST", path, document)
        require(answer["migrated"] == [record["name"]], f"would migrate {answer['migrated']}")
        require("region" in str(answer["unknown"]), "the unknown field is not reported")
        require(KEY not in str(answer), "the key is shown")
    await site.ask("GET", f"/admin/instances/{record['name']}/config", expect=404)


async def can_be_operated(site: Site) -> None:
    level = (await site.ask("GET", "/admin/logging"))["level"]
    await site.ask("PUT", "/admin/logging", {"level": level})
    await site.ask("PUT", "/admin/logging", {"level": "LOUD"}, expect=422)
    metrics = await site.admin.get("/metrics")
    require(metrics.status_code == 200, f"/metrics answered {metrics.status_code}")
    described = (await site.ask("GET", "/openapi.json"))["paths"]
    require("/admin/config/reload" in described, "there is no /admin/config/reload")


CHECKS: Final[tuple[Check, ...]] = (
    lives,
    takes_the_admin_key_and_no_other,
    adds_shows_and_deletes,
    merges_changes_and_refuses_wrong_ones,
    separates_configuration_and_state,
    loses_no_concurrent_update,
    adds_a_name_once_however_many_ask,
    stands_a_little_load,
    answers_at_the_old_addresses,
    converts_the_earlier_systems_data,
    can_be_operated,
)


# -- running them ------------------------------------------------------------------------------


def check(url: str, admin_key: str, client_key: str = "") -> int:
    """Prints a line for each check and the verdict; returns the exit status."""
    return trio.run(_check, url.rstrip("/"), admin_key, client_key)


async def _check(url: str, admin_key: str, client_key: str) -> int:
    began = trio.current_time()
    connect = partial(
        httpx.AsyncClient,
        base_url=url,
        timeout=REQUEST_LIMIT_S,
        trust_env=False,
        limits=httpx.Limits(max_connections=None),
    )
    async with connect(headers={"X-Admin-API-Key": admin_key}) as admin, connect() as anyone:
        site = Site(admin, anyone, client_key=client_key)
        try:
            before = await site.instances()
        except (Failed, httpx.HTTPError) as error:
            print(f"FAILED: {url} can't be checked: {_said(error)}")
            return 1
        failures = await _run_checks(site)
        failures += await _differences(site, before)
    took = f"in {trio.current_time() - began:.1f} s"
    if failures:
        print(f"FAILED: {failures} of {len(CHECKS) + 1} checks of {url}, {took}.")
        return 1
    print(f"PASSED: {len(CHECKS) + 1} checks of {url}, {took}; nothing was left behind.")
    return 0


async def _run_checks(site: Site) -> int:
    """How many failed. Afterwards our instances are deleted, also if this is interrupted."""
    failures = 0
    try:
        for each in CHECKS:
            try:
                with trio.fail_after(CHECK_LIMIT_S):
                    await each(site)
            except* (Failed, httpx.HTTPError, trio.TooSlowError, *_ODD_ANSWER) as group:
                failures += 1
                report(False, each.__name__, _said(_first(group)))
            else:
                report(True, each.__name__)
    finally:
        # A service that is gone meanwhile shows in the comparison that follows.
        with trio.move_on_after(CHECK_LIMIT_S, shield=True), suppress(Failed, httpx.HTTPError):
            await site.delete_ours()
    return failures


async def _differences(site: Site, before: dict[str, Any]) -> int:
    """1 if there are other instances than before, or with other configurations."""
    name = "leaves everything as it was"
    try:
        after = await site.instances()
    except (Failed, httpx.HTTPError) as error:
        report(False, name, _said(error))
        return 1
    different = [
        each
        for each in {**before, **after}
        if before.get(each, {}).get("config") != after.get(each, {}).get("config")
    ]
    report(not different, name, f"changed: {', '.join(different)}")
    return bool(different)


def report(passed: bool, name: str, reason: str = "") -> None:
    line = f"{'PASS' if passed else 'FAIL'}  {name.replace('_', ' ')}"
    print(line if passed else f"{line}: {reason}", flush=True)


def require(condition: bool, otherwise: str) -> None:
    """Errors: `Failed` with `otherwise`."""
    if not condition:
        raise Failed(otherwise)


def _object(answer: httpx.Response, what: str, expected: int) -> dict[str, Any]:
    if answer.status_code != expected:
        raise Failed(f"{what} answered {answer.status_code} instead of {expected}")
    try:
        document = answer.json()
    except ValueError:
        raise Failed(f"{what} did not answer in JSON") from None
    if not isinstance(document, dict):
        raise Failed(f"{what} did not answer with a JSON object")
    return document


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(error: BaseException) -> str:
    if isinstance(error, Failed):
        return str(error)
    return f"{type(error).__name__}: {error}"
