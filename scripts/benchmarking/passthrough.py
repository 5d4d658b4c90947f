"""The naive way: a Quart-Trio app that passes each request on with httpx, under Hypercorn.

Written as one would write it first, with the defaults of all three where they let it work.
Run as `python -m benchmarking.passthrough PORT UPSTREAM_PORT`.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import httpx
import hypercorn.trio
import trio
from hypercorn.config import Config
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_NOT_PASSED_ON = {"host", "connection", "content-length", "transfer-encoding", "remote-addr"}


def application(client: httpx.AsyncClient) -> QuartTrio:
    app = QuartTrio(__name__)

    @app.route("/<path:path>", methods=["GET", "POST"])
    async def pass_on(path: str) -> Response:
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _NOT_PASSED_ON
        ]
        upstream_request = client.build_request(
            request.method, f"/{path}", headers=headers, content=await request.get_data()
        )
        answer = await client.send(upstream_request, stream=True)
        answer_headers = Headers(
            (name, value)
            for name, value in answer.headers.multi_items()
            if name not in _NOT_PASSED_ON
        )
        if answer.headers["content-type"].startswith("application/json"):
            body = await answer.aread()
            await answer.aclose()
            return Response(body, answer.status_code, answer_headers)

        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            finally:
                with trio.move_on_after(1, shield=True):
                    await answer.aclose()

        streamed = Response(chunks(), answer.status_code, answer_headers)
        streamed.timeout = None  # else a stream ends after a minute
        return streamed

    return app


async def main(port: int, upstream_port: int) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.backlog = 4096
    config.accesslog = None
    logging.getLogger("httpx").setLevel(logging.WARNING)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{upstream_port}",
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        timeout=60,
        trust_env=False,
    ) as client:
        await hypercorn.trio.serve(application(client), config)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
