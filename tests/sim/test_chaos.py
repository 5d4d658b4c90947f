"""What must hold whatever happens to instances, actors, clients and configuration, all at once.

A request is **retryable** here if another instance could have given its answer: its client stayed
to the end and was not at fault itself, and nothing of an answer had gone out when it failed. While
one instance (the haven) is well and has room, 999 of 1000 of those get their answer.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import get_args

import pytest
from chaos import RETRIES, Chaos, Run, run_chaos
from clients import Client
from fakes import FakeWriter
from keepsakes import KINDS
from operator_changes import CHANGES, HAVEN
from weather import FAULTS

from actors.policy.selection import Strategy
from proxy.exchange.record import RequestRecord

SEEDS = range(1, 6)
SHARE_SERVED = 0.999


@cache
def short_run(seed: int) -> Run:
    return run_chaos(seed, Chaos())


def check(run: Run) -> None:
    assert run.wrongs == []
    records = {record.id: record for record in run.records}
    assert len(records) == len(run.records), "one record each"
    assert records.keys() == run.clients.keys()
    for name, client in run.clients.items():
        check_record(client, records[name])
        check_answer(client, records[name])
    check_share(run)


def check_record(client: Client, record: RequestRecord) -> None:
    assert client.answered is not client.left
    assert len(record.trail) <= record.attempts
    if client.kept:
        return
    assert record.attempts <= 1 + RETRIES
    for attempt in record.trail[:-1]:
        assert attempt.outcome.kind not in ("success", "client_error"), "and yet another followed"


def check_answer(client: Client, record: RequestRecord) -> None:
    """Complete, or an explicit error, or cut by the client itself."""
    writer = client.writer
    if client.left:
        assert not writer.finished or record.status != 499
        return
    assert writer.finished is not writer.aborted
    assert writer.status == record.status
    if writer.aborted:
        assert record.code == "upstream_interrupted"
    elif writer.status != 200 and record.code:
        error = writer.error()
        assert (bool(error["message"]), error["code"]) == (True, record.code), "it is our own"
    elif client.kept:
        check_kept(writer)
    elif writer.status != 200:
        answered = {attempt.outcome.status for attempt in record.trail}
        assert writer.status in answered, "it is an upstream's"
    elif client.stream:
        last = writer.body.rstrip().rpartition(b"\n\n")[2]
        whole = last == b"data: [DONE]" or b'"finish_reason":"' in last
        assert whole is not last.startswith(b"event: error"), last
    elif b"<html>" not in writer.body:
        assert "error" not in json.loads(writer.body)


def check_kept(writer: FakeWriter) -> None:
    if writer.status != 200:
        return  # an upstream's refusal, as it came: errands leave no trail
    kind = writer.header(b"content-type")
    if kind == b"text/event-stream":
        last = writer.body.rstrip().rpartition(b"\n\n")[2]
        assert last.startswith((b"event: response.", b"event: error")), last
    elif kind == b"application/json" and b"<html>" not in writer.body:
        assert json.loads(writer.body).get("error") is None


def retryable(client: Client) -> bool:
    """Of one that failed: see above. A success is counted by its status."""
    return not client.left and not client.at_fault and not client.kept


def check_share(run: Run) -> None:
    statuses = Counter(c.writer.status for c in run.clients.values() if retryable(c))
    served = statuses[200] / statuses.total()
    assert served >= SHARE_SERVED, f"{served:.4f} of {statuses.total()} were served: {statuses}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run(seed: int) -> None:
    check(short_run(seed))


def test_the_same_seed_is_the_same_run() -> None:
    again = run_chaos(SEEDS[0], Chaos())
    assert short_run(SEEDS[0]).trace == again.trace


def test_it_was_a_test() -> None:
    """Everything that can go wrong did, in these runs together."""
    runs = [short_run(seed) for seed in SEEDS]
    assert {fault for run in runs for fault in run.struck} == set(FAULTS)
    assert {change for run in runs for change in run.changes} == set(CHANGES)
    assert all(run.kills > 10 for run in runs)
    outcomes = Counter(a.outcome.kind for run in runs for r in run.records for a in r.trail)
    assert min(outcomes.values()) > 5, outcomes
    assert len(outcomes) == 8, "all there are"
    statuses = Counter(record.status for run in runs for record in run.records)
    assert statuses[499] > 50
    assert statuses[400] > 10
    codes = Counter(record.code for run in runs for record in run.records)
    assert codes["upstream_interrupted"] > 5, "cut after the first output"
    at_haven = sum(a.instance == HAVEN for run in runs for r in run.records for a in r.trail)
    assert at_haven < 0.7 * outcomes.total(), "the others work too"
    assert {kind for run in runs for kind in run.kept.asked} == set(KINDS)
    done = {r.operation for run in runs for r in run.records if r.status == 200}
    assert done >= {"files", "files/{file_id}", "files/{file_id}/content", "responses"}
    assert any("was not remembered" in line for run in runs for line in run.lines)


def some_chaos(seed: int) -> Chaos:
    """Other mixtures than the usual one, and every strategy."""
    mixtures: tuple[dict[str, float], ...] = (
        {},
        {"storm_s": 5.0},
        {"per_min": 1200.0, "leaving": 0.5},
        {"crashing": 0.01, "killed_s": 2.0},
        {"changed_s": 0.7},
    )
    strategies = get_args(Strategy)
    return Chaos(
        minutes=5.0,
        strategy=strategies[seed % len(strategies)],
        **mixtures[seed % len(mixtures)],  # type: ignore[arg-type]
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
def test_many_runs(seed: int) -> None:
    check(run_chaos(seed, some_chaos(seed)))
