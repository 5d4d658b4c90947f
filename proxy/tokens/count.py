"""The exact number of input tokens, by the published rules, without ever stalling the event loop.

Measured with tiktoken 0.14 on CPython 3.11, one shared core: English is encoded at 10 MB/s, the
slowest texts found (one repeated character, random letters or ideographs without a space) at 2 to
3 MB/s. A single run of letters or spaces takes more than linear time (1 MB of "a": 0.6 s, 4 MB:
4 s), and a run of a million spaces makes the native side panic. Encoding releases the GIL; making
the list of tokens afterwards holds it, for 10 to 30 ns per token (4 MB at once: up to 200 ms).
Hence texts are encoded in slices: the cost is linear, no piece gets near the panic, and nobody
waits longer for the GIL than the list of one slice takes (at most 4 ms, for 130 000 tokens). A hop
into a thread and back costs 0.15 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from proxy.tokens import vocabulary
from proxy.tokens.bounds import prompt_bounds
from proxy.tokens.prompt import EstimateKind, read_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import tiktoken

SLICE_CHARS = 32 * 1024
"""The most that is encoded in one go: 3 ms of English, 30 ms at worst."""

INLINE_CHARS = 2 * 1024
"""Up to here a thread would cost as much as it saves: 0.2 ms of English, 1.3 ms at worst."""

MAX_CHARS = 4 * 1024 * 1024
"""Beyond any context window (a million tokens are about 4 MB of English), so no decision depends
on the exact number."""

_CALL_CHARS = 16
"""What encoding costs even for an empty text, as so many characters."""

_CUT_ATTEMPTS = 64

_threads = trio.CapacityLimiter(2)
"""Counting never takes more cores than this, nor the threads that others need."""


def count_input_tokens(
    kind: EstimateKind, body: Mapping[str, Any], model: str, encoding: tiktoken.Encoding
) -> int:
    """Input tokens of a request, however long that takes. Never raises.

    Exact by the rules that `prompt` names, with two exceptions: of a body with more than
    `prompt.MAX_ITEMS` members only the first are counted, and a text that goes on for
    `SLICE_CHARS` without a place to cut it may come out a token or two higher.
    """
    prompt = read_prompt(kind, body, model)
    return prompt.fixed_tokens + sum(
        _encoded_length(texts, encoding) for texts in slices(prompt.texts)
    )


async def count(kind: EstimateKind, body: Mapping[str, Any], model: str, *, body_bytes: int) -> int:
    """Input tokens of a request, exactly up to `MAX_CHARS` of text and else the likely number.

    `body_bytes`: as for `bounds.bounds`. Short texts are counted at once, unless the vocabulary
    has yet to be loaded; others in a thread, a slice at a time, so that requests being counted
    take turns and a cancelled one stops after its slice. A checkpoint in every case.
    Errors: `vocabulary.BrokenVocabulary`.
    """
    prompt = read_prompt(kind, body, model)
    chars = sum(map(_weight, prompt.texts))
    if chars > MAX_CHARS or not prompt.complete:
        await trio.lowlevel.checkpoint()
        return prompt_bounds(prompt, body_bytes).likely
    if not chars:
        await trio.lowlevel.checkpoint()
        return prompt.fixed_tokens
    encoding = await vocabulary.load(model)
    if chars <= INLINE_CHARS:
        return prompt.fixed_tokens + _encoded_length(prompt.texts, encoding)
    tokens = prompt.fixed_tokens
    for texts in slices(prompt.texts):
        tokens += await trio.to_thread.run_sync(_encoded_length, texts, encoding, limiter=_threads)
    return tokens


def slices(texts: Iterable[str], limit: int = SLICE_CHARS) -> Iterator[list[str]]:
    """All of `texts` in order, in lists of at most `limit` characters each.

    Short texts share a list; a long one is cut, where that doesn't change its tokens if such a
    place can be found.
    """
    batch: list[str] = []
    room = limit
    for text in texts:
        for piece in pieces(text, limit) if len(text) > limit else (text,):
            weight = _weight(piece)
            if weight > room and batch:
                yield batch
                batch, room = [], limit
            batch.append(piece)
            room -= weight
    if batch:
        yield batch


def pieces(text: str, limit: int) -> Iterator[str]:
    """`text` cut into pieces of at most `limit` characters."""
    start = 0
    while len(text) - start > limit:
        end = _cut(text, start, start + limit)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, start: int, end: int) -> int:
    """The last good place in (start, end]: before a space that follows something else.

    Both encodings split a text by a pattern first, and in both a space can only be the first
    character of a part, or come after other white space.
    """
    place = end + 1
    for _ in range(_CUT_ATTEMPTS):
        place = text.rfind(" ", start + 1, place)
        if place < 0:
            break
        if not text[place - 1].isspace():
            return place
    return end


def _weight(text: str) -> int:
    return len(text) + _CALL_CHARS


def _encoded_length(texts: list[str], encoding: tiktoken.Encoding) -> int:
    # encode_ordinary: text that looks like a special token is text, as `disallowed_special=()`.
    return sum(len(encoding.encode_ordinary(text)) for text in texts)
