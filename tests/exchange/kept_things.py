"""Two keepers, and what tests have them keep."""

from __future__ import annotations

from typing import Any

from bound_bench import BoundBench, keeper
from fakes import FakeWriter

ONE, TWO = keeper("one", 1), keeper("two", 2)
BOUNDARY = "multipart/form-data; boundary=b"


def form(content: bytes = b'{"custom_id":"1"}\n', purpose: str = "batch") -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
        + purpose.encode()
        + b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )


async def upload(bench: BoundBench, address: str = "/v1", **fields: Any) -> FakeWriter:
    return await bench.ask("POST", f"{address}/files", form(**fields), content_type=BOUNDARY)


async def prefer(bench: BoundBench, name: str) -> None:
    await bench.system.administration.update_config(name, {"priority": 0})
