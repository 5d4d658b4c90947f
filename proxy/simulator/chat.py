"""Chat completions: what a request asks for, the plain answer and the streamed one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from proxy.simulator import catalogue, fields
from proxy.simulator.call import Event, sse
from proxy.simulator.run import Ask, Run, Whole
from proxy.simulator.surface import STREAM_OPTIONS_SINCE, Address
from proxy.simulator.text import answer_part, answer_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.simulator.deployment import Deployment
    from proxy.simulator.fields import Body

DONE = b"data: [DONE]\n\n"
_MESSAGE_TOKENS = 3
_PRIMING_TOKENS = 3
_IMAGE_TOKENS = 765
_LOW_DETAIL_TOKENS = 85
_MOST_MESSAGES = 2048
_MOST_CHOICES = 128


def read(body: Body, address: Address, deployment: Deployment) -> Ask:
    """Errors: `ApiError` for anything that the service refuses about the request itself."""
    messages = body.get("messages")
    if messages is None:
        raise catalogue.missing("messages")
    if type(messages) is not list or not messages:
        raise catalogue.wrong_type("messages", "a non-empty array")
    if len(messages) > _MOST_MESSAGES:
        raise catalogue.wrong_value("messages", f"at most {_MOST_MESSAGES} messages")
    texts: list[str] = []
    other_tokens = _PRIMING_TOKENS
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise catalogue.wrong_type(f"messages[{index}]", "an object")
        other_tokens += _MESSAGE_TOKENS + _read_content(message.get("content"), texts)
    if "tools" in body:
        texts.append(json.dumps(body["tools"]))
    choices = fields.integer(body, "n", most=_MOST_CHOICES) or 1
    return Ask(
        body,
        " ".join(texts),
        other_tokens,
        "messages",
        limit=_output_limit(body, deployment),
        samples=choices,
        choices=choices,
        stream=fields.flag(body, "stream"),
        include_usage=wants_usage(body, address),
    )


def _read_content(content: Any, texts: list[str]) -> int:
    """Adds the text of one message to `texts`; returns the tokens of what is not text."""
    if type(content) is str:
        texts.append(content)
        return 0
    if content is None:
        return 0
    if type(content) is not list:
        raise catalogue.wrong_type("messages", "a string or an array as content")
    tokens = 0
    for part in content:
        if type(part) is not dict:
            raise catalogue.wrong_type("messages", "objects as content parts")
        if type(part.get("text")) is str:
            texts.append(part["text"])
        elif part.get("type") == "image_url":
            image = part.get("image_url")
            low = type(image) is dict and image.get("detail") == "low"
            tokens += _LOW_DETAIL_TOKENS if low else _IMAGE_TOKENS
    return tokens


def _output_limit(body: Body, deployment: Deployment) -> int | None:
    if deployment.reasons and body.get("max_tokens") is not None:
        raise catalogue.unsupported_max_tokens()
    newer = fields.integer(body, "max_completion_tokens")
    return newer if newer is not None else fields.integer(body, "max_tokens")


def wants_usage(body: Body, address: Address) -> bool:
    """`stream_options.include_usage`; versions from before it refuse the option altogether."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not address.since(STREAM_OPTIONS_SINCE):
        raise catalogue.unrecognized_argument("stream_options")
    if type(options) is not dict:
        raise catalogue.wrong_type("stream_options", "an object")
    if not body.get("stream"):
        raise catalogue.wrong_value("stream_options", "only with 'stream'")
    return fields.flag(options, "include_usage")


def usage(ask: Ask, run: Run) -> dict[str, Any]:
    """What the call used; all answers generated count, those not given back too."""
    completion = run.answer_tokens * ask.samples
    return {
        "prompt_tokens": run.input_tokens,
        "completion_tokens": completion,
        "total_tokens": run.input_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": run.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def prompt_filter() -> list[dict[str, Any]]:
    """Azure's verdict on the prompt."""
    return [{"prompt_index": 0, "content_filter_results": catalogue.SAFE_RESULT}]


def filter_result(run: Run) -> dict[str, Any]:
    """Azure's verdict on an answer."""
    blocked = run.finish == "content_filter"
    return catalogue.BLOCKED_RESULT if blocked else catalogue.SAFE_RESULT


def whole(ask: Ask, run: Run) -> Whole:
    """The plain answer."""
    text = answer_text(run.answer_tokens)
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "finish_reason": run.finish,
            "logprobs": None,
        }
        for index in range(ask.choices)
    ]
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{run.id}",
        "object": "chat.completion",
        "created": run.created,
        "model": run.deployment.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
        "choices": choices,
        "usage": usage(ask, run),
    }
    if run.address.azure:
        answer["prompt_filter_results"] = prompt_filter()
        for choice in choices:
            choice["content_filter_results"] = filter_result(run)
    return Whole(to_json(answer))


def events(ask: Ask, run: Run) -> Iterator[Event]:
    """The streamed answer: filter verdict (Azure), role, content, finish, usage if wanted, end."""
    chunk = _ChunkForm(ask, run)
    if run.address.azure:
        yield Event(
            sse(
                {
                    "choices": [],
                    "created": 0,
                    "id": "",
                    "model": "",
                    "object": "",
                    "prompt_filter_results": prompt_filter(),
                }
            )
        )
    every = range(ask.choices)
    for index in every:
        yield Event(chunk.made(index, '{"content":"","refusal":null,"role":"assistant"}', "{}"))
    per_event = run.deployment.chunk_tokens
    verdict = to_json(filter_result(run)).decode()
    for first in range(0, run.answer_tokens, per_event):
        tokens = min(per_event, run.answer_tokens - first)
        delta = f'{{"content":"{answer_part(first, tokens)}"}}'
        for index in every:
            yield Event(chunk.made(index, delta, verdict), tokens, 0 if index else tokens)
    for index in every:
        yield Event(chunk.made(index, "{}", "{}", f'"{run.finish}"'))
    if ask.include_usage:
        yield Event(chunk.with_usage(usage(ask, run)))
    yield Event(DONE)


class _ChunkForm:
    """Writes chunks of one stream from ready-made parts: content is plain ASCII by design."""

    __slots__ = ("_azure", "_tail", "_usage")

    def __init__(self, ask: Ask, run: Run) -> None:
        self._azure = run.address.azure
        self._usage = ',"usage":null' if ask.include_usage else ""
        model = json.dumps(run.deployment.model)
        self._tail = (
            f'],"created":{run.created},"id":"chatcmpl-{run.id}","model":{model},'
            '"object":"chat.completion.chunk","system_fingerprint":"fp_simulated"'
        )

    def made(self, index: int, delta: str, verdict: str, finish: str = "null") -> bytes:
        filtered = f'"content_filter_results":{verdict},' if self._azure else ""
        return (
            f'data: {{"choices":[{{{filtered}"delta":{delta},"finish_reason":{finish},'
            f'"index":{index},"logprobs":null}}{self._tail}{self._usage}}}\n\n'
        ).encode()

    def with_usage(self, used: dict[str, Any]) -> bytes:
        return f'data: {{"choices":[{self._tail},"usage":{to_json(used).decode()}}}\n\n'.encode()
