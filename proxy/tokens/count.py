"""The exact number of input tokens, by the published rules.

Measured with tiktoken 0.14 on CPython 3.11, one shared core: English is encoded at 10 MB/s, the
slowest texts found (one repeated character, random letters or ideographs without a space) at 2 to
3 MB/s. A single run of letters or spaces takes more than linear time (1 MB of "a": 0.6 s, 4 MB:
4 s), and a run of a million spaces makes the native side panic. Hence texts are encoded in slices:
the cost is linear, no piece gets near the panic, and requests that are counted at the same time
take turns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from proxy.tokens.bounds import prompt_bounds
from proxy.tokens.prompt import EstimateKind, Prompt, read_prompt
from proxy.tokens.vocabulary import EncodingName, encoded_length, encoding_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Encode: TypeAlias = Callable[[list[str], EncodingName], Awaitable[int | None]]
"""How many tokens a slice of texts has; None if that can't be said now. A checkpoint."""

SLICE_CHARS = 32 * 1024
"""The most that is encoded in one go: 3 ms of English, 30 ms at worst."""

MAX_CHARS = 4 * 1024 * 1024
"""Beyond any context window (a million tokens are about 4 MB of English), so no decision depends
on the exact number."""

_CALL_CHARS = 16
"""What encoding costs even for an empty text, as so many characters."""

_CUT_ATTEMPTS = 64


async def at_once(texts: list[str], name: EncodingName) -> int:
    """Encodes in this process, and holds up everything else in it: for a virtual clock, on which
    that takes no time. The service has an `EncoderProcess`. Errors: `BrokenVocabulary`."""
    await trio.lowlevel.checkpoint()
    return encoded_length(texts, name)


async def count(
    kind: EstimateKind,
    body: Mapping[str, Any],
    model: str,
    *,
    body_bytes: int,
    encode: Encode = at_once,
) -> int:
    """Input tokens of a request, exactly, or the likely number if that would take too long (more
    than `MAX_CHARS` of text or `prompt.MAX_ITEMS` members) or if `encode` can't say.

    Exact by the rules that `prompt` names, except that files are guessed, and that a text that goes
    on for `SLICE_CHARS` without a place to cut it may come out a token or two higher.
    `body_bytes`: as for `bounds.bounds`.

    Waits for one slice at a time, so that requests being counted take turns and a cancelled one
    stops after its slice. A checkpoint in every case. Errors: those of `encode`.
    """
    prompt = read_prompt(kind, body, model)
    tokens = None
    if prompt.complete and sum(map(_weight, prompt.texts)) <= MAX_CHARS:
        tokens = await _encoded(prompt, encode)
    else:
        await trio.lowlevel.checkpoint()
    return prompt_bounds(prompt, body_bytes).likely if tokens is None else tokens


async def _encoded(prompt: Prompt, encode: Encode) -> int | None:
    if not prompt.texts:
        await trio.lowlevel.checkpoint()
    name = encoding_name(prompt.model)
    tokens = prompt.fixed_tokens + prompt.guessed_tokens
    for texts in slices(prompt.texts):
        encoded = await encode(texts, name)
        if encoded is None:
            return None
        tokens += encoded
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
