"""Files and batches of one resource: enough to show that an id lives where it was made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from proxy.simulator import catalogue, fields
from proxy.simulator.call import Answer, json_answer
from proxy.simulator.fields import Body, Upload

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_STORED_BYTES = 64 * 1024 * 1024
_MOST_ITEMS = 10_000
_PAGE = 20
_BATCH_TAKES_S = 10.0


@dataclass(slots=True)
class _File:
    id: str
    created: int
    purpose: str
    upload: Upload

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.upload.content),
            "created_at": self.created,
            "filename": self.upload.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(slots=True)
class _Batch:
    id: str
    begun_at: float
    created: int
    body: Body
    lines: int
    output_file_id: str | None = None
    cancelled: bool = False


class Files:
    """The files and the batches. `new_id`: unique hexadecimal text, from the resource's seed."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._files: dict[str, _File] = {}
        self._batches: dict[str, _Batch] = {}

    def answer_files(
        self, method: str, parts: list[str], query: bytes, body: Body, created: int
    ) -> Answer:
        """Everything below `files`. Errors: `ApiError`."""
        match (method, parts):
            case ("POST", []):
                purpose = fields.required_text(body, "purpose")
                return json_answer(self._add(fields.upload(body, "file"), purpose, created))
            case ("GET", []):
                purpose = dict(parse_qsl(query.decode("latin-1"))).get("purpose", "")
                found = (file for file in self._files.values() if purpose in ("", file.purpose))
                return json_answer(_listed([file.document() for file in found], query, _MOST_ITEMS))
            case ("GET", [file_id]):
                return json_answer(self._file(file_id).document())
            case ("GET", [file_id, "content"]):
                content = self._file(file_id).upload.content
                return Answer(200, [(b"content-type", b"application/octet-stream")], content)
            case ("DELETE", [file_id]):
                del self._files[self._file(file_id).id]
                return json_answer({"id": file_id, "object": "file", "deleted": True})
            case _:
                raise catalogue.resource_not_found()

    def answer_batches(
        self, method: str, parts: list[str], query: bytes, body: Body, now: float, created: int
    ) -> Answer:
        """Everything below `batches`. Errors: `ApiError`."""
        match (method, parts):
            case ("POST", []):
                return json_answer(self._document(self._begin(body, now, created), now))
            case ("GET", []):
                every = [self._document(batch, now) for batch in self._batches.values()]
                return json_answer(_listed(every, query, _PAGE))
            case ("GET", [batch_id]):
                return json_answer(self._document(self._batch(batch_id), now))
            case ("POST", [batch_id, "cancel"]):
                batch = self._batch(batch_id)
                batch.cancelled = batch.cancelled or now < batch.begun_at + _BATCH_TAKES_S
                return json_answer(self._document(batch, now))
            case _:
                raise catalogue.resource_not_found()

    def _add(self, upload: Upload, purpose: str, created: int) -> dict[str, Any]:
        stored = sum(len(file.upload.content) for file in self._files.values())
        if stored + len(upload.content) > MOST_STORED_BYTES or len(self._files) >= _MOST_ITEMS:
            raise catalogue.wrong_value("file", f"at most {MOST_STORED_BYTES} bytes in all files")
        file = _File(f"file-{self._new_id()}", created, purpose, upload)
        self._files[file.id] = file
        return file.document()

    def _file(self, file_id: str) -> _File:
        if file_id not in self._files:
            raise catalogue.item_not_found("File", file_id)
        return self._files[file_id]

    def _batch(self, batch_id: str) -> _Batch:
        if batch_id not in self._batches:
            raise catalogue.item_not_found("Batch", batch_id)
        return self._batches[batch_id]

    def _begin(self, body: Body, now: float, created: int) -> _Batch:
        source = self._file(fields.required_text(body, "input_file_id"))
        fields.required_text(body, "endpoint")
        if len(self._batches) >= _MOST_ITEMS:
            raise catalogue.wrong_value("input_file_id", f"at most {_MOST_ITEMS} batches")
        lines = source.upload.content.splitlines()
        batch = _Batch(f"batch_{self._new_id()}", now, created, body, len(lines))
        self._batches[batch.id] = batch
        return batch

    def _document(self, batch: _Batch, now: float) -> dict[str, Any]:
        completed = not batch.cancelled and now >= batch.begun_at + _BATCH_TAKES_S
        if completed and batch.output_file_id is None:
            batch.output_file_id = self._output_of(batch)
        status = "completed" if completed else "cancelled" if batch.cancelled else "in_progress"
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.body["endpoint"],
            "errors": None,
            "input_file_id": batch.body["input_file_id"],
            "completion_window": batch.body.get("completion_window", "24h"),
            "status": status,
            "output_file_id": batch.output_file_id,
            "error_file_id": None,
            "created_at": batch.created,
            "metadata": batch.body.get("metadata"),
            "request_counts": {
                "total": batch.lines,
                "completed": batch.lines if completed else 0,
                "failed": 0,
            },
        }

    def _output_of(self, batch: _Batch) -> str:
        """One result per line of the input, by its `custom_id`, in a file of their own."""
        source = self._files.get(batch.body["input_file_id"])
        results = []
        for line in source.upload.content.splitlines() if source else ():
            try:
                asked = json.loads(line)
            except ValueError:
                asked = {}
            custom_id = asked.get("custom_id") if type(asked) is dict else None
            answer = {"status_code": 200, "request_id": self._new_id(), "body": {}}
            results.append({"custom_id": custom_id, "response": answer, "error": None})
        content = b"".join(json.dumps(result).encode() + b"\n" for result in results)
        document = self._add(Upload("output.jsonl", content), "batch_output", batch.created)
        return str(document["id"])


def _listed(documents: list[dict[str, Any]], query: bytes, limit: int) -> dict[str, Any]:
    """One page, the newest first unless the query says otherwise. Errors: `ApiError`."""
    wanted = dict(parse_qsl(query.decode("latin-1")))
    if wanted.get("order") != "asc":
        documents = documents[::-1]
    if "after" in wanted:
        places = [n for n, document in enumerate(documents) if document["id"] == wanted["after"]]
        if not places:
            raise catalogue.wrong_value("after", "the id of something listed")
        documents = documents[places[0] + 1 :]
    given = wanted.get("limit", "")
    if given.isascii() and given.isdigit():
        limit = min(limit, int(given[:9]))
    ids = [document["id"] for document in documents[:limit]] or [None]
    return {
        "object": "list",
        "data": documents[:limit],
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": len(documents) > limit,
    }
