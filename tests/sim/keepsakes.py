"""Requests about what instances keep: files and responses, those that are there and others."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

from fakes import FakeRequest, FakeWriter

BOUNDARY: Final = b"multipart/form-data; boundary=b"
FORM: Final = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\n\r\n--b--\r\n'
)


class Keepsakes:
    """What the answers so far have made known, and requests that are about it."""

    def __init__(self, model: str, rng: random.Random) -> None:
        self._model = model
        self._rng = rng
        self._ids: dict[str, list[str]] = {"file": ["file-nobodys"], "resp": ["resp_nobodys"]}
        self.asked: dict[str, int] = {}
        """How often what was asked for."""

    def request(self) -> FakeRequest:
        """One of `KINDS`, at random."""
        kind = self._rng.choice(list(KINDS))
        self.asked[kind] = self.asked.get(kind, 0) + 1
        method, path, body = KINDS[kind](self)
        if isinstance(body, dict):
            body = json.dumps({"model": self._model, "max_output_tokens": 99, **body}).encode()
        path, _, query = path.partition("?")
        content_type = BOUNDARY if body == FORM else b"application/json"
        headers = [(b"content-type", content_type)]
        return FakeRequest(f"/v1/{path}", [body] if body else [], method, query.encode(), headers)

    def learn(self, writer: FakeWriter) -> None:
        """Takes note of the ids in an answer, as a client would."""
        for line in writer.body.splitlines():
            text = line.removeprefix(b"data: ")
            if writer.status != 200 or not text.startswith(b"{"):
                continue
            document = json.loads(text)
            found = document.get("response", document).get("id", "")
            self._ids.get(found[:4], []).append(found)

    def any_of(self, kind: str) -> str:
        """One of the newest, or nobody's."""
        return self._rng.choice([*self._ids[kind][-10:], self._ids[kind][0]])

    def turn(self) -> dict[str, Any]:
        stream = self._rng.random() < 0.5
        return {"input": "It was the best of times.", "stream": stream}


Drawn = tuple[str, str, Any]

KINDS: Final[dict[str, Callable[[Keepsakes], Drawn]]] = {
    "list": lambda kept: ("GET", "files?limit=3", b""),
    "next page": lambda kept: ("GET", f"files?limit=3&after={kept.any_of('file')}", b""),
    "upload": lambda kept: ("POST", "files", FORM),
    "read": lambda kept: ("GET", f"files/{kept.any_of('file')}", b""),
    "download": lambda kept: ("GET", f"files/{kept.any_of('file')}/content", b""),
    "delete": lambda kept: ("DELETE", f"files/{kept.any_of('file')}", b""),
    "begin": lambda kept: ("POST", "responses", kept.turn()),
    "continue": lambda kept: (
        "POST",
        "responses",
        {**kept.turn(), "previous_response_id": kept.any_of("resp")},
    ),
    "read response": lambda kept: ("GET", f"responses/{kept.any_of('resp')}", b""),
}
