"""The admin addresses that the earlier system used while it was in transition.

They answer 308, so that method and body are kept, and say by `Deprecation` (RFC 9745) and `Link`
(RFC 8288, with the relation of RFC 5829) what is to be used instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from quart import request

if TYPE_CHECKING:
    from quart import Blueprint

    from proxy.front.admin import Answer

DEPRECATED_AT: Final = 1795305600
"""2026-11-22, the day of the first release that has the new addresses."""
INSTANCES: Final = "/admin/instances"


def add_to(api: Blueprint) -> None:
    api.add_url_rule("/instances/new", "old_instances", _instances, methods=["GET", "POST"])
    for part in ("config", "state"):
        api.add_url_rule(
            f"/instances/new/<name>/{part}",
            f"old_{part}",
            _record,
            methods=["GET", "PUT"],
            defaults={"part": part},
        )


async def _instances() -> Answer:
    return _moved(INSTANCES)


async def _record(name: str, part: str) -> Answer:
    return _moved(f"{INSTANCES}/{quote(name, safe='')}/{part}")


def _moved(address: str) -> Answer:
    query = request.query_string.decode("latin-1")
    headers = {
        "Location": f"{address}?{query}" if query else address,
        "Deprecation": f"@{DEPRECATED_AT}",
        "Link": f'<{address}>; rel="successor-version"',
    }
    return {"status": "error", "message": f"moved permanently to {address}"}, 308, headers
