"""What of a request becomes input tokens: its texts, and the tokens that no text shows.

The one reading of a request that both the bounds and the exact count rest on, so that they can't
disagree. Rules: the OpenAI cookbook, "How to count tokens with tiktoken" (messages and tools;
verified there against the API for GPT-3.5, GPT-4 and GPT-4o; later models are assumed to follow).
The Responses API has no published rule and is read as if its items were chat messages.

Clients may send any JSON: what has an unexpected shape counts for nothing and raises nothing,
because judging it is the upstream's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from proxy.tokens.files import file_tokens
from proxy.tokens.functions import add_functions
from proxy.tokens.images import image_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EstimateKind: TypeAlias = Literal[
    "chat", "completions", "embeddings", "responses", "images", "speech", "moderations", "none"
]
"""How the input of an operation is counted; "none": it has no countable input."""

MAX_ITEMS = 20_000
"""Objects and list members looked at in one request. Azure takes 2048 messages and 2048 embedding
inputs; a body that is nothing but tiny members would otherwise cost as much as parsing it."""

_IMAGE_TYPES = ("image_url", "input_image", "computer_screenshot")
_IMAGE_ITEMS = 16
"""An image counts as so many, by the time it takes."""

_MESSAGE_TOKENS = 3
_NAME_TOKENS = 1
_PRIMING_TOKENS = 3

_AUDIO_BYTES_PER_TOKEN = {"wav": 4800, "pcm16": 4800}
"""One token per 100 ms of a user's audio ("Managing costs", OpenAI Realtime guide): 16 bits at
24 kHz. Other formats are compressed to about 64 kbit/s."""
_COMPRESSED_AUDIO_BYTES_PER_TOKEN = 800

_ITEM_TEXTS = ("role", "name", "content", "arguments", "input", "output", "summary")
"""Fields of a Responses item that the model sees. Left out: ids and statuses, and encrypted
reasoning, whose length says nothing of its tokens."""


class Prompt:
    """The input of one request.

    `texts` are to be encoded one by one; `fixed_tokens` come on top, exactly known, and
    `guessed_tokens` of `unread_bytes`, of which nobody knows how many tokens they become.
    `complete` is False when the request had more than `MAX_ITEMS` parts: then some are missing
    from all of these.
    """

    __slots__ = (
        "_items_left", "complete", "fixed_tokens", "guessed_tokens", "model", "texts",
        "unread_bytes",
    )  # fmt: skip

    def __init__(self, model: str) -> None:
        self.model = model
        self.texts: list[str] = []
        self.fixed_tokens = 0
        self.guessed_tokens = 0
        self.unread_bytes = 0
        self.complete = True
        self._items_left = MAX_ITEMS

    def affords(self, items: int) -> bool:
        """Whether so many more members may be looked at."""
        self._items_left -= items
        if self._items_left < 0:
            self.complete = False
            return False
        return True

    def add_messages(self, messages: list[Any]) -> None:
        if not self.affords(len(messages)):
            return
        texts = self.texts
        for message in messages:
            if not isinstance(message, dict) or not self.affords(len(message)):
                continue
            self.fixed_tokens += _MESSAGE_TOKENS
            for key, value in message.items():
                if isinstance(value, str):
                    texts.append(value)
                    if key == "name":
                        self.fixed_tokens += _NAME_TOKENS
                elif value:
                    self._add_nested(key, value)

    def add_items(self, items: list[Any]) -> None:
        """Members of a Responses `input` list."""
        if self.affords(len(items)):
            for item in items:
                if isinstance(item, dict) and self.affords(len(_ITEM_TEXTS)):
                    self.fixed_tokens += _MESSAGE_TOKENS
                    for key in _ITEM_TEXTS:
                        self._add_content(item.get(key))
                    add_functions(self, item.get("tools"))

    def add_input(self, value: Any) -> None:
        """A text, tokens, or a list of either, or of content parts: `prompt` and `input` fields."""
        if isinstance(value, str):
            self.texts.append(value)
        elif isinstance(value, list) and value:
            if isinstance(value[0], int):
                self.fixed_tokens += len(value)
            elif self.affords(len(value)):
                for member in value:
                    if isinstance(member, list):
                        self.fixed_tokens += len(member)
                    else:
                        self._add_part(member)

    def _add_nested(self, key: str, value: Any) -> None:
        """A field of a chat message that is more than a string."""
        if key == "content":
            self._add_content(value)
        elif key == "function_call":
            self._add_call(value)
        elif key == "tool_calls" and isinstance(value, list) and self.affords(len(value)):
            for call in value:
                if isinstance(call, dict):
                    self._add_call(call.get("function"))
                    self._add_call(call.get("custom"))

    def _add_call(self, call: Any) -> None:
        if isinstance(call, dict):
            for key in ("name", "arguments", "input"):
                value = call.get(key)
                if isinstance(value, str):
                    self.texts.append(value)

    def _add_content(self, content: Any) -> None:
        if isinstance(content, str):
            self.texts.append(content)
        elif isinstance(content, list) and self.affords(len(content)):
            for part in content:
                self._add_part(part)
        elif isinstance(content, dict):
            self._add_part(content)

    def _add_part(self, part: Any) -> None:
        if isinstance(part, str):
            self.texts.append(part)
        elif isinstance(part, dict):
            text = part.get("text")
            if isinstance(text, str):
                self.texts.append(text)
                return
            kind = part.get("type")
            if kind in _IMAGE_TYPES:
                self._add_image(part)
            elif kind == "input_audio":
                self._add_audio(part.get("input_audio"))
            elif kind == "input_file":
                self._add_file(part)
            elif kind == "file":
                self._add_file(part.get("file"))
            elif kind == "refusal" and isinstance(part.get("refusal"), str):
                self.texts.append(part["refusal"])

    def _add_image(self, part: dict[str, Any]) -> None:
        if self.affords(_IMAGE_ITEMS):
            image = part.get("image_url")
            source = image if isinstance(image, dict) else part
            url = image.get("url") if isinstance(image, dict) else image
            self.fixed_tokens += image_tokens(self.model, url, source.get("detail"))

    def _add_audio(self, audio: Any) -> None:
        if isinstance(audio, dict) and isinstance(audio.get("data"), str):
            per_token = _COMPRESSED_AUDIO_BYTES_PER_TOKEN
            if isinstance(audio.get("format"), str):
                per_token = _AUDIO_BYTES_PER_TOKEN.get(audio["format"], per_token)
            self.fixed_tokens += len(audio["data"]) * 3 // 4 // per_token + 1

    def _add_file(self, file: Any) -> None:
        data = file.get("file_data") if isinstance(file, dict) else None
        if isinstance(data, str):
            self.unread_bytes += len(data)
            self.guessed_tokens += file_tokens(data)


def read_prompt(kind: EstimateKind, body: Mapping[str, Any], model: str) -> Prompt:
    """What `body` puts into the model's context, as far as the request itself shows it.

    What the upstream adds from its own store (`previous_response_id`, stored prompts and files, the
    overhead of its built-in tools) is not in it. Never raises; cost is linear in the number of
    members, not in their length, and bounded by `MAX_ITEMS`.
    """
    prompt = Prompt(model)
    _READERS[kind](prompt, body)
    return prompt


def _read_chat(prompt: Prompt, body: Mapping[str, Any]) -> None:
    prompt.fixed_tokens += _PRIMING_TOKENS
    messages = body.get("messages")
    if isinstance(messages, list):
        prompt.add_messages(messages)
    for name in ("tools", "functions"):
        if name in body:
            add_functions(prompt, body[name])
    answer = body.get("response_format")
    if isinstance(answer, dict):
        add_functions(prompt, [answer.get("json_schema")])


def _read_completions(prompt: Prompt, body: Mapping[str, Any]) -> None:
    prompt.add_input(body.get("prompt"))
    prompt.add_input(body.get("suffix"))


def _read_input(prompt: Prompt, body: Mapping[str, Any]) -> None:
    prompt.add_input(body.get("input"))


def _read_responses(prompt: Prompt, body: Mapping[str, Any]) -> None:
    prompt.fixed_tokens += _PRIMING_TOKENS
    given = body.get("input")
    if isinstance(given, str):
        prompt.texts.append(given)
        prompt.fixed_tokens += _MESSAGE_TOKENS + 1  # the role, "user"
    elif isinstance(given, list):
        prompt.add_items(given)
    instructions = body.get("instructions")
    if isinstance(instructions, str):
        prompt.texts.append(instructions)
        prompt.fixed_tokens += _MESSAGE_TOKENS + 1  # the role, "system"
    add_functions(prompt, body.get("tools"))
    answer = body.get("text")
    if isinstance(answer, dict):
        add_functions(prompt, [answer.get("format")])


def _read_images(prompt: Prompt, body: Mapping[str, Any]) -> None:
    prompt.add_input(body.get("prompt"))


def _read_speech(prompt: Prompt, body: Mapping[str, Any]) -> None:
    prompt.add_input(body.get("input"))
    prompt.add_input(body.get("instructions"))


def _read_nothing(_prompt: Prompt, _body: Mapping[str, Any]) -> None:
    """The input is a file, or none at all."""


_READERS: dict[EstimateKind, Callable[[Prompt, Mapping[str, Any]], None]] = {
    "chat": _read_chat,
    "completions": _read_completions,
    "embeddings": _read_input,
    "responses": _read_responses,
    "images": _read_images,
    "speech": _read_speech,
    "moderations": _read_input,
    "none": _read_nothing,
}
