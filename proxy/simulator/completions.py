"""The older text completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from proxy.simulator import catalogue, fields
from proxy.simulator.call import Event, sse
from proxy.simulator.chat import DONE, filter_result, prompt_filter, usage, wants_usage
from proxy.simulator.run import Ask, Run, Whole
from proxy.simulator.text import answer_part, answer_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.simulator.deployment import Deployment
    from proxy.simulator.fields import Body
    from proxy.simulator.surface import Address

_MOST_PROMPTS = 2048
_MOST_SAMPLES = 128
_MOST_ANSWERS = 2048


def read(body: Body, address: Address, deployment: Deployment) -> Ask:
    """Errors: `ApiError` for anything that the service refuses about the request itself."""
    del deployment
    text, tokens, prompts = read_inputs(body.get("prompt", "<|endoftext|>"), "prompt")
    choices = fields.integer(body, "n", most=_MOST_SAMPLES) or 1
    samples = fields.integer(body, "best_of", most=_MOST_SAMPLES) or choices
    stream = fields.flag(body, "stream")
    if samples * prompts > _MOST_ANSWERS:
        raise catalogue.wrong_value("n", f"at most {_MOST_ANSWERS} answers in all")
    if samples < choices or (stream and samples > choices):
        raise catalogue.wrong_value("best_of", "at least 'n', and no more when streaming")
    return Ask(
        body,
        text,
        tokens,
        "prompt",
        limit=fields.integer(body, "max_tokens"),
        samples=samples * prompts,
        choices=choices * prompts,
        stream=stream,
        include_usage=wants_usage(body, address),
    )


def read_inputs(value: Any, param: str) -> tuple[str, int, int]:
    """A text, a list of texts, tokens, or a list of tokens, as (all the text, tokens, inputs).

    Errors: `ApiError` for any other shape.
    """
    if type(value) is str:
        return value, 0, 1
    if type(value) is not list or not value:
        raise catalogue.wrong_type(param, "a string or a non-empty array")
    if len(value) > _MOST_PROMPTS and type(value[0]) is not int:
        raise catalogue.wrong_value(param, f"an array of at most {_MOST_PROMPTS} inputs")
    if all(type(item) is str for item in value):
        return " ".join(value), 0, len(value)
    if all(type(item) is int for item in value):
        return "", len(value), 1
    if all(type(item) is list and all(type(token) is int for token in item) for item in value):
        return "", sum(map(len, value)), len(value)
    raise catalogue.wrong_type(param, "strings, tokens or arrays of tokens")


def whole(ask: Ask, run: Run) -> Whole:
    """The plain answer."""
    text = answer_text(run.answer_tokens)
    answer = _chunk(run, [_choice(run, index, text, run.finish) for index in range(ask.choices)])
    answer["usage"] = usage(ask, run)
    return Whole(to_json(answer))


def events(ask: Ask, run: Run) -> Iterator[Event]:
    """The streamed answer."""
    if run.address.azure:
        yield Event(sse({**_chunk(run, []), "prompt_filter_results": prompt_filter()}))
    per_event = run.deployment.chunk_tokens
    for first in range(0, run.answer_tokens, per_event):
        tokens = min(per_event, run.answer_tokens - first)
        part = answer_part(first, tokens)
        for index in range(ask.choices):
            body = sse(_chunk(run, [_choice(run, index, part, None)]))
            yield Event(body, tokens, 0 if index else tokens)
    for index in range(ask.choices):
        yield Event(sse(_chunk(run, [_choice(run, index, "", run.finish)])))
    if ask.include_usage:
        yield Event(sse({**_chunk(run, []), "usage": usage(ask, run)}))
    yield Event(DONE)


def _choice(run: Run, index: int, text: str, finish: str | None) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": index,
        "text": text,
        "finish_reason": finish,
        "logprobs": None,
    }
    if run.address.azure:
        choice["content_filter_results"] = filter_result(run)
    return choice


def _chunk(run: Run, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"cmpl-{run.id}",
        "object": "text_completion",
        "created": run.created,
        "model": run.deployment.model,
        "choices": choices,
    }
