"""Requests whose input has a wanted length, and their tokens without encoding them.

Every prompt is a number of its own, so that no two begin alike, and then one text over and over.
In both vocabularies that text has a token for each word and four characters for each token, which
is also what a simulated resource takes for a token. So the exact count is a division.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from proxy.planning.resources import EMBEDDING_PREFIX
from proxy.simulator.inference import OUTPUT_TOKENS_FIELD
from proxy.tokens.prompt import read_prompt
from proxy.tokens.vocabulary import encoding_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.planning.arrivals import Ask
    from proxy.tokens.bounds import EstimateKind

_ROUND: Final = (
    " we plan how much of a minute is left for the next one and who has to wait so that all of it "
    "fits in"
)
_ENDS: Final = list(accumulate(len(word) + 1 for word in _ROUND.split()))
_CHARACTERS_PER_TOKEN: Final = 4
_HEAD_CHARACTERS: Final = 8
_HEAD_TOKENS: Final = 3
"""Both vocabularies make a token of three digits at the most."""
_CHAT_TOKENS: Final = 6
"""What a resource counts for one message and for beginning an answer."""

_text = _ROUND


def embeds(model: str) -> bool:
    """Whether requests for `model` are for embeddings."""
    return model.startswith(EMBEDDING_PREFIX)


def path(model: str) -> str:
    return "/v1/embeddings" if embeds(model) else "/v1/chat/completions"


def body(ask: Ask, number: int) -> bytes:
    """The JSON body of `ask`: its input has `ask.input_tokens` by the resources' count.

    At least eight tokens; a chat has no fewer. `number`: at most eight digits.
    """
    model = json.dumps(ask.model)
    if embeds(ask.model):
        text = _prompt(ask.input_tokens, number)
        return f'{{"model":{model},"input":"{text}","dimensions":1}}'.encode()
    text = _prompt(ask.input_tokens - _CHAT_TOKENS, number)
    limit = "" if ask.max_tokens is None else f'"max_completion_tokens":{ask.max_tokens},'
    stream = '"stream":true,' if ask.stream else ""
    return (
        f'{{"model":{model},{limit}{stream}"messages":[{{"role":"user","content":"{text}"}}],'
        f'"metadata":{{"{OUTPUT_TOKENS_FIELD}":"{ask.output_tokens}"}}}}'
    ).encode()


def _prompt(tokens: int, number: int) -> str:
    return (
        f"{number:0{_HEAD_CHARACTERS}d}{_filler(tokens * _CHARACTERS_PER_TOKEN - _HEAD_CHARACTERS)}"
    )


def _filler(characters: int) -> str:
    global _text  # noqa: PLW0603 - grown once to the longest prompt, then only read
    if len(_text) < characters:
        _text = _ROUND * (2 * characters // len(_ROUND) + 1)
    return _text[: max(0, characters)]


def count(kind: EstimateKind, document: Mapping[str, Any], model: str) -> int:
    """What `proxy.tokens.count.count` says of a `body` that was made here, at once.

    Encoding whole prompts would take most of a rehearsal's time, and another process would run on
    real time: while it encodes, a virtual clock sees everybody idle and moves on.
    """
    prompt = read_prompt(kind, document, model)
    tokens = prompt.fixed_tokens
    for text in prompt.texts:
        if text[:_HEAD_CHARACTERS].isdigit():
            rounds, rest = divmod(len(text) - _HEAD_CHARACTERS, len(_ROUND))
            begun = bisect_left(_ENDS, rest) + 1 if rest else 0
            tokens += _HEAD_TOKENS + rounds * len(_ENDS) + begun
        else:
            tokens += len(encoding_for(model).encode_ordinary(text))
    return tokens
