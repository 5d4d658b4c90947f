"""Azure's prompt cache: how many leading tokens of a prompt this resource has seen lately.

Rules from learn.microsoft.com, "Prompt caching", read 2026-11: from 1024 identical leading tokens
on, in steps of 128, kept apart by `prompt_cache_key`. A token is taken as four characters.
"""

from __future__ import annotations

_LEAST_CHARACTERS = 1024 * 4
_STEP_TOKENS = 128
_STEP_CHARACTERS = _STEP_TOKENS * 4
_MOST_CHARACTERS = 128 * _STEP_CHARACTERS
_KEPT_S = 3600.0
_MOST_PROMPTS = 256


class PromptCache:
    """The prompts that came last, bounded in number and in size."""

    def __init__(self) -> None:
        self._prompts: dict[tuple[str, str], tuple[float, str]] = {}

    def cached_tokens(self, now: float, key: str, text: str) -> int:
        """Tokens at the start of `text` that are cached; 0 for a short text. Never blocks."""
        if len(text) < _LEAST_CHARACTERS:
            return 0
        kept = self._prompts.get((key, text[:_LEAST_CHARACTERS]))
        if kept is None or now - kept[0] > _KEPT_S:
            return 0
        return _steps_alike(kept[1], text) * _STEP_TOKENS

    def remember(self, now: float, key: str, text: str) -> None:
        """From `now` on the start of `text` is cached, up to 16384 tokens."""
        if len(text) < _LEAST_CHARACTERS:
            return
        place = (key, text[:_LEAST_CHARACTERS])
        self._prompts.pop(place, None)
        if len(self._prompts) >= _MOST_PROMPTS:
            del self._prompts[next(iter(self._prompts))]
        self._prompts[place] = (now, text[:_MOST_CHARACTERS])


def _steps_alike(one: str, other: str) -> int:
    """Whole steps that both begin with, found by halving. Cost: linear in the shorter text."""
    least, most = 0, min(len(one), len(other)) // _STEP_CHARACTERS
    while least < most:
        middle = (least + most + 1) // 2
        end = middle * _STEP_CHARACTERS
        if one[:end] == other[:end]:
            least = middle
        else:
            most = middle - 1
    return least
