"""Whether the service stays as quick as it is at its start: after an hour of traffic, and with what
it writes to its files.

What an hour leaves in the files is there when the service starts (`leftovers`); what it leaves in
memory comes from requests of all kinds, each unlike the others, until every memory of finished
ones is full.
"""

from __future__ import annotations

import http.client
import json
from itertools import chain
from typing import TYPE_CHECKING

from .leftovers import response_id
from .load import ClosedLoop, run_load
from .peers import Setting
from .scenarios import CONNECTIONS, SMALL_BYTES, answered, closed_loop_on
from .wire import MODEL, StreamShape, chat_body, chat_request, plain_request

if TYPE_CHECKING:
    from .peers import Peer
    from .results import Sample
    from .running import Running
    from .scenarios import Bench

_REQUESTS = 12_000
"""More than the service remembers the records of."""
_KINDS = 500
"""Of each kind of request so many that differ."""
_STREAM = StreamShape(events=10, pause_s=0)
_LONG_BYTES = 8000


def aged(bench: Bench, peer: Peer) -> Sample:
    """Small requests at a service that has just started, at one that writes no files, and after an
    hour of traffic."""
    fresh = _measured(bench, peer, Setting())
    old = _measured(bench, peer, Setting(aged=True))
    samples = {"fresh": fresh, "aged": old}
    if peer.from_here:
        samples["unsaved"] = _measured(bench, peer, Setting(saved=False))
    return {
        **{f"cpu_{name}_us": sample["cpu_us"] for name, sample in samples.items()},
        "p99_fresh_ms": fresh["p99_ms"],
        "p99_aged_ms": old["p99_ms"],
        "others_busy_share": max(one["others_busy_share"] for one in samples.values()),
        "errors": sum(one["errors"] for one in samples.values()),
    }


def _measured(bench: Bench, peer: Peer, setting: Setting) -> Sample:
    async def measure(target: Running) -> Sample:
        if setting.aged:
            varied = ClosedLoop(target.port, _varied(peer.authorization), CONNECTIONS)
            await answered(peer, varied, _REQUESTS)
        return await closed_loop_on(bench, peer, target)

    with bench.running(peer, setting) as target:
        _wait_for_all_of_it(target.port)
        return run_load(lambda: measure(target))


def _wait_for_all_of_it(port: int) -> None:
    """What the service loads while it serves already is loaded: it is needed for this answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    finally:
        connection.close()


def _varied(authorization: str) -> list[bytes]:
    """Requests of every kind in turn, most of them answered with 200."""
    small = chat_body(SMALL_BYTES)
    long = chat_body(_LONG_BYTES).replace(b"the ", b"a %06d ", 1)
    keyed = json.loads(small)

    def number(n: int) -> tuple[bytes, ...]:
        key = json.dumps(keyed | {"prompt_cache_key": f"user-{n}"}).encode()
        unknown = chat_body(SMALL_BYTES, model=f"{MODEL}-{n}")
        return (
            chat_request(small, authorization),
            chat_request(chat_body(SMALL_BYTES, _STREAM), authorization),
            chat_request(key, authorization),
            chat_request(long % n, authorization),
            chat_request(unknown, authorization),
            chat_request(small, f"Bearer wrong-{n}"),
            plain_request("GET", f"/v1/responses/{response_id(n)}", authorization),
            plain_request("DELETE", f"/v1/responses/{response_id(_KINDS + n)}", authorization),
        )

    return list(chain.from_iterable(number(n) for n in range(_KINDS)))
