"""An attempt that gave the client nothing, kept for the case that no other does better, and how
the client is told if none does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from proxy.exchange.failure_table import PASSED_ON
from proxy.exchange.headers import returned
from proxy.exchange.refusals import last_word

if TYPE_CHECKING:
    from proxy.bound.binding import Binding
    from proxy.exchange.classify import Verdict
    from proxy.exchange.ports import Headers, ResponseWriter, UpstreamFailure
    from proxy.exchange.record import RequestRecord


@dataclass(frozen=True, slots=True)
class Failed:
    """`status` is None if there was no answer at all. `ours`: what was refused is what this proxy
    had added, and will not add again."""

    verdict: Verdict
    instance: str
    status: int | None = None
    headers: Headers | None = None
    body: bytes = b""
    failure: UpstreamFailure | None = None
    ours: bool = False


def more_telling(last: Failed | None, failed: Failed) -> Failed:
    """Of two failures the one that helps the client more, as the failure table says."""
    if last is None or failed.verdict.rule.telling >= last.verdict.rule.telling:
        return failed
    return last


async def tell(
    failed: Failed, binding: Binding | None, writer: ResponseWriter, record: RequestRecord
) -> None:
    """Tells the client the failure that stays: as it came, or in our words (`ProxyError`).

    `binding`: what tied the request to the instance.
    """
    told = failed.verdict.rule.told
    if failed.status is None or failed.headers is None or told not in PASSED_ON:
        if binding is not None and told == "unreachable":
            raise binding.unreachable(failed.failure)
        raise last_word(told, failed.failure)
    record.status = failed.status
    record.first_byte_s = trio.current_time() - record.started_at
    headers = returned(failed.headers, failed.instance.encode(), record.id.encode())
    headers.append((b"x-proxy-attempts", b"%d" % record.attempts))
    await writer.respond(failed.status, headers, failed.body)
