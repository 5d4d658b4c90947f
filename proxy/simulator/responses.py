"""The Responses API: requests, plain and streamed answers, and what the resource keeps of them.

A response is kept as what it was asked and given; its document is made again when it is read.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from itertools import islice
from types import NoneType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pydantic_core import to_json

from proxy.simulator import catalogue, fields
from proxy.simulator.call import EVENT_STREAM, Answer, Event, json_answer, sse
from proxy.simulator.run import Ask, Run, Whole
from proxy.simulator.text import answer_part, answer_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.simulator.deployment import Deployment
    from proxy.simulator.fields import Body
    from proxy.simulator.surface import Address

_LEAST_OUTPUT_TOKENS = 16
_MOST_KEPT = 1000
_ITEM_TOKENS = 3
_ENCRYPTED = "reasoning.encrypted_content"
_SEAL_MARK = "gAAAA"


@dataclass(slots=True)
class _Kept:
    ask: Ask
    run: Run
    cancelled: bool = False

    def status(self, now: float) -> str:
        if self.cancelled:
            return "cancelled"
        if self.ask.background and now < self.run.now + self.run.takes_s:
            return "in_progress"
        return _final_status(self.run)


class Responses:
    """The responses of one resource. `secret`: only what it has sealed itself can it read."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._kept: dict[str, _Kept] = {}

    def read(self, body: Body, address: Address, deployment: Deployment) -> Ask:
        """Errors: `ApiError` for anything that the service refuses about the request itself."""
        del address, deployment
        if "input" not in body:
            raise catalogue.missing("input")
        if type(body.get("include", [])) not in (list, NoneType):
            raise catalogue.wrong_type("include", "an array")
        texts = [fields.text(body, "instructions") or ""]
        items = input_items(body)
        other_tokens = 0
        for item in items:
            other_tokens += _ITEM_TOKENS
            if item.get("type") == "reasoning" and not self._opens(item.get("encrypted_content")):
                raise catalogue.invalid_encrypted_content()
            texts += _texts_of(item)
        previous = fields.text(body, "previous_response_id")
        if previous is not None:
            before = self._kept.get(previous)
            if before is None:
                raise catalogue.previous_response_not_found(previous)
            other_tokens += before.run.input_tokens + before.run.answer_tokens
        limit = fields.integer(body, "max_output_tokens", least=_LEAST_OUTPUT_TOKENS)
        return Ask(
            body,
            " ".join(texts),
            other_tokens,
            "input",
            limit=limit,
            stream=fields.flag(body, "stream"),
            background=fields.flag(body, "background"),
        )

    def whole(self, ask: Ask, run: Run) -> Whole:
        """The plain answer: complete, or queued when it was asked for in the background."""
        self._keep(ask, run)
        status = "queued" if ask.background else _final_status(run)
        return Whole(to_json(self._document(ask, run, status)))

    def events(self, ask: Ask, run: Run) -> Iterator[Event]:
        """The streamed answer, from `response.created` to `response.completed`."""
        for number, (name, told, tokens) in enumerate(self._story(ask, run)):
            body = sse({"type": name, "sequence_number": number, **told}, name)
            yield Event(body, tokens, tokens)

    def look_up(self, method: str, parts: list[str], query: bytes, now: float) -> Answer:
        """Answers about a response that is kept: read, resume, input items, cancel, delete."""
        kept = self._kept.get(parts[0])
        if kept is None:
            raise catalogue.item_not_found("Response", parts[0])
        match (method, parts[1:]):
            case ("GET", []):
                wanted = dict(parse_qsl(query.decode("latin-1")))
                if wanted.get("stream") == "true":
                    return self._resumed(kept, wanted.get("starting_after", ""))
                return json_answer(self._document(kept.ask, kept.run, kept.status(now)))
            case ("GET", ["input_items"]):
                return json_answer(_item_list(kept))
            case ("DELETE", []):
                del self._kept[parts[0]]
                return json_answer({"id": parts[0], "object": "response", "deleted": True})
            case ("POST", ["cancel"]):
                if not kept.ask.background:
                    raise catalogue.wrong_value("response_id", "a background response")
                kept.cancelled = kept.cancelled or kept.status(now) == "in_progress"
                return json_answer(self._document(kept.ask, kept.run, kept.status(now)))
            case _:
                raise catalogue.resource_not_found()

    def _keep(self, ask: Ask, run: Run) -> None:
        if ask.body.get("store") is False:
            return
        if len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept.setdefault(f"resp_{run.id}", _Kept(ask, run))

    def _resumed(self, kept: _Kept, after: str) -> Answer:
        first = int(after[:9]) + 1 if after.isascii() and after.isdigit() else 0
        rest = islice(self.events(kept.ask, kept.run), first, None)
        return Answer(200, [EVENT_STREAM], b"".join(event.body for event in rest))

    def _story(self, ask: Ask, run: Run) -> Iterator[tuple[str, dict[str, Any], int]]:
        """The events in order: name, fields, tokens generated."""
        begun = self._document(ask, run, "in_progress")
        yield "response.created", {"response": begun}, 0
        yield "response.in_progress", {"response": begun}, 0
        output = self._output(ask, run)
        for index, item in enumerate(output[:-1]):
            yield "response.output_item.added", {"output_index": index, "item": item}, 0
            yield "response.output_item.done", {"output_index": index, "item": item}, 0
        index, message = len(output) - 1, output[-1]
        opened = {**message, "status": "in_progress", "content": []}
        yield "response.output_item.added", {"output_index": index, "item": opened}, 0
        place = {"item_id": message["id"], "output_index": index, "content_index": 0}
        part = message["content"][0]
        yield "response.content_part.added", {**place, "part": {**part, "text": ""}}, 0
        per_event = run.deployment.chunk_tokens
        for first in range(0, run.answer_tokens, per_event):
            tokens = min(per_event, run.answer_tokens - first)
            delta = {**place, "delta": answer_part(first, tokens), "logprobs": []}
            yield "response.output_text.delta", delta, tokens
        yield "response.output_text.done", {**place, "text": part["text"], "logprobs": []}, 0
        yield "response.content_part.done", {**place, "part": part}, 0
        yield "response.output_item.done", {"output_index": index, "item": message}, 0
        self._keep(ask, run)
        status = _final_status(run)
        yield f"response.{status}", {"response": self._document(ask, run, status)}, 0

    def _output(self, ask: Ask, run: Run) -> list[dict[str, Any]]:
        output: list[dict[str, Any]] = []
        if run.deployment.reasons or _ENCRYPTED in (ask.body.get("include") or ()):
            thought: dict[str, Any] = {"id": f"rs_{run.id}", "type": "reasoning", "summary": []}
            if _ENCRYPTED in (ask.body.get("include") or ()):
                thought["encrypted_content"] = self._seal(run.id)
            output.append(thought)
        text = {"type": "output_text", "text": answer_text(run.answer_tokens), "annotations": []}
        output.append(
            {
                "id": f"msg_{run.id}",
                "type": "message",
                "role": "assistant",
                "status": "completed" if run.finish == "stop" else "incomplete",
                "content": [text],
            }
        )
        return output

    def _document(self, ask: Ask, run: Run, status: str) -> dict[str, Any]:
        finished = status in ("completed", "incomplete")
        body = ask.body
        return {
            "id": f"resp_{run.id}",
            "object": "response",
            "created_at": run.created,
            "status": status,
            "background": ask.background,
            "error": None,
            "incomplete_details": _incomplete(run) if status == "incomplete" else None,
            "instructions": body.get("instructions"),
            "max_output_tokens": ask.limit,
            "metadata": body.get("metadata") or {},
            "model": run.deployment.name,
            "output": self._output(ask, run) if finished else [],
            "parallel_tool_calls": True,
            "previous_response_id": body.get("previous_response_id"),
            "prompt_cache_key": body.get("prompt_cache_key"),
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": body.get("store") is not False,
            "temperature": body.get("temperature", 1.0),
            "text": {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "top_p": body.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": _usage(run) if finished else None,
        }

    def _seal(self, content: str) -> str:
        mark = hmac.digest(self._secret, content.encode(), "sha256")
        return _SEAL_MARK + urlsafe_b64encode(mark + content.encode()).decode()

    def _opens(self, sealed: Any) -> bool:
        """Whether this resource has sealed it; an item without sealed content is as good."""
        if sealed is None:
            return True
        if type(sealed) is not str or not sealed.startswith(_SEAL_MARK) or not sealed.isascii():
            return False
        try:
            raw = urlsafe_b64decode(sealed[len(_SEAL_MARK) :])
        except ValueError:
            return False
        return hmac.compare_digest(hmac.digest(self._secret, raw[32:], "sha256"), raw[:32])


def input_items(body: Body) -> list[dict[str, Any]]:
    """The input as a list of items. Errors: `ApiError` 400."""
    value = body["input"]
    if type(value) is str:
        return [{"type": "message", "role": "user", "content": value}]
    if type(value) is not list or not all(type(item) is dict for item in value):
        raise catalogue.wrong_type("input", "a string or an array of objects")
    return value


def _texts_of(item: dict[str, Any]) -> list[str]:
    content = item.get("content", item.get("output"))
    if type(content) is str:
        return [content]
    if type(content) is not list:
        return []
    parts = (part.get("text") for part in content if type(part) is dict)
    return [part for part in parts if type(part) is str]


def _item_list(kept: _Kept) -> dict[str, Any]:
    items = []
    for index, item in enumerate(input_items(kept.ask.body)):
        content = item.get("content")
        if type(content) is str:
            content = [{"type": "input_text", "text": content}]
        items.append({"id": f"item_{index}_{kept.run.id}", **item, "content": content})
    ids = [item["id"] for item in items] or [None]
    return {
        "object": "list",
        "data": items,
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": False,
    }


def _final_status(run: Run) -> str:
    return "completed" if run.finish == "stop" else "incomplete"


def _incomplete(run: Run) -> dict[str, str]:
    return {"reason": "max_output_tokens" if run.finish == "length" else "content_filter"}


def _usage(run: Run) -> dict[str, Any]:
    return {
        "input_tokens": run.input_tokens,
        "input_tokens_details": {"cached_tokens": run.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": run.answer_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": run.input_tokens + run.answer_tokens,
    }
