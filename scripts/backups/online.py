"""Restoring while the service runs: over its admin API, so that nothing is interrupted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .service import Json, Service, ServiceFailed, instance_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .records import Records

HISTORY = (
    "error_count",
    "last_error",
    "last_error_time",
    "total_requests",
    "successful_requests",
    "last_used",
    "avg_latency_ms",
)
"""What a state says of the past. What it says of the moment (the running minute, connections,
health) the service has seen for itself since."""


@dataclass
class Report:
    """What was done, in words, and what could not be."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def restore(service: Service, configs: Records, states: Records, report: Report) -> None:
    """The service has exactly the instances in `configs`, each as it is there, and their history.

    What is refused is reported, and the rest is done. Instances that are too many go last, so
    that there is never less to serve with than before or after. Errors: `ServiceFailed`.
    """
    fields = _fields(service.get("/openapi.json"))
    live = _instances(service)
    for name, record in configs.items():
        _put(service, name, _complete(name, record, fields, report), name in live, report)
    for name in live:
        if name not in configs:
            _send(service, report, "DELETE", instance_path(name))
    live = _instances(service)
    for name in _confirm(live, configs, report):
        changes = state_changes(states.get(name, {}), live[name]["state"], time.time())
        if changes:
            _send(service, report, "PUT", instance_path(name, "state"), changes)


def state_changes(record: Json, live: Json, now: float) -> Json:
    """What of a backed-up state `record` differs from the `live` one and still means something.

    Beyond the history: whether an operator had taken the instance out of service, and a limit
    that has not ended yet. `now`: epoch seconds.
    """
    changes = {
        name: record[name] for name in HISTORY if name in record and record[name] != live.get(name)
    }
    capacity, until = record.get("capacity"), record.get("rate_limited_until")
    quarantine = capacity.get("quarantine") if isinstance(capacity, dict) else None
    out_of_service = live.get("status") == "error"
    if quarantine is not None and not out_of_service:
        changes |= {"status": "error", "last_error": record.get("last_error")}
    elif quarantine is None and out_of_service and record.get("status") == "healthy":
        changes["status"] = "healthy"
    if until is not None and until > max(now, live.get("rate_limited_until") or 0):
        changes["rate_limited_until"] = until
    return changes


def _fields(openapi: Json) -> dict[str, Json]:
    """The fields of a configuration that this service takes, each with its default if any."""
    try:
        fields: dict[str, Json] = openapi["components"]["schemas"]["NewInstance"]["properties"]
    except (KeyError, TypeError):
        raise ServiceFailed("this address answers, but not as the proxy does") from None
    return fields


def _instances(service: Service) -> dict[str, Json]:
    instances: dict[str, Json] = service.get("/admin/instances")["instances"]
    return instances


def _complete(name: str, record: Json, fields: dict[str, Json], report: Report) -> Json:
    """All fields of a configuration: what `record` leaves out has its default, because a change
    would leave it as it is."""
    for other in record:
        if other not in fields:
            report.failed.append(
                f"{name}: {other} is no field of the admin API; to restore it, stop the service "
                "and restore the files"
            )
    defaults = {key: known["default"] for key, known in fields.items() if "default" in known}
    return {
        **defaults,
        "name": name,
        **{key: value for key, value in record.items() if key in fields},
    }


def _put(service: Service, name: str, config: Json, exists: bool, report: Report) -> None:
    if exists:
        _send(service, report, "PUT", instance_path(name, "config"), config)
    else:
        _send(service, report, "POST", "/admin/instances", config)


def _send(
    service: Service, report: Report, method: str, path: str, document: Json | None = None
) -> None:
    answer = service.ask(method, path, document)
    if answer.status < 300:
        report.done.append(answer.message)
    else:
        report.failed.append(f"{method} {path}: {answer.message}")


def _confirm(live: dict[str, Json], configs: Records, report: Report) -> Iterator[str]:
    """Looks whether the service now says what was restored; yields the names that are there."""
    for name in live:
        if name not in configs:
            report.failed.append(f"{name}: is still there")
    for name, record in configs.items():
        if name not in live:
            report.failed.append(f"{name}: is not there")
            continue
        shown = live[name]["config"]
        wrong = [key for key in record if key in shown and not _same(key, record[key], shown[key])]
        if wrong:
            report.failed.append(f"{name}: {', '.join(wrong)} is not as it was backed up")
        yield name


def _same(key: str, wanted: Any, shown: Any) -> bool:
    if key == "api_key":  # shown masked, with its end at most
        masked = isinstance(shown, str) and shown.startswith("****")
        return str(wanted).endswith(shown[4:]) if masked else bool(wanted == shown)
    if key == "api_base":
        return bool(str(wanted).rstrip("/") == shown)
    return bool(wanted == shown)
