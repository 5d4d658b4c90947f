"""Which requests should meet the same instance, because it may hold their beginning already.

Prompt caches work on identical beginnings of 1 024 tokens and more and belong to one resource
(learn.microsoft.com, "Prompt caching"), so sending such requests to the same one saves money and
provisioned capacity. Shorter prompts gain nothing, and go where the strategy likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actors.policy.selection import key_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGINNING_CHARS: Final = 4096
"""About 1 024 tokens of English, the least that a cache keeps."""
MAX_KEY_CHARS: Final = 512


def affinity(document: dict[str, Any], model: str, body_bytes: int) -> int | None:
    """64 bits that requests with a common beginning share; None if nothing is gained.

    The client's own `prompt_cache_key` wins. Cost: nothing for a small request without one.
    """
    key = document.get("prompt_cache_key")
    if isinstance(key, str) and key:
        return key_hash(f"{model}\0{key[:MAX_KEY_CHARS]}".encode("utf-8", "replace"))
    if body_bytes < BEGINNING_CHARS:
        return None
    beginning = _beginning(document)
    if len(beginning) < BEGINNING_CHARS:
        return None
    return key_hash(f"{model}\0{beginning}".encode("utf-8", "replace"))


def _beginning(document: dict[str, Any]) -> str:
    parts: list[str] = []
    length = 0
    for text in _texts(document):
        parts.append(text[: BEGINNING_CHARS - length])
        length += len(parts[-1])
        if length >= BEGINNING_CHARS:
            break
    return "".join(parts)


def _texts(document: dict[str, Any]) -> Iterator[str]:
    """The prompt's texts in the order in which the model reads them."""
    instructions = document.get("instructions")
    if isinstance(instructions, str):
        yield instructions
    for name in ("messages", "input", "prompt"):
        value = document.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            for item in value:
                yield from _item_texts(item)


def _item_texts(item: object) -> Iterator[str]:
    content = item.get("content") if isinstance(item, dict) else item
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
