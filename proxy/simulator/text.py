"""Words to answer with, and the cheap count of tokens that stands in for a tokenizer."""

from __future__ import annotations

_SENTENCE = (
    "a simulated answer goes on for as long as it was asked to and says nothing of any weight "
    "yet every word in it counts as one token so that what was wanted is what is given and "
    "what is reported and two runs from one seed agree to the letter"
)
_WORDS = tuple(" " + word for word in _SENTENCE.split())
_CYCLE = "".join(_WORDS)
_OFFSETS = tuple(sum(map(len, _WORDS[:count])) for count in range(len(_WORDS)))


def answer_text(tokens: int) -> str:
    """A text of so many words, each of which counts as one token. ASCII, nothing to escape."""
    rounds, rest = divmod(tokens, len(_WORDS))
    return (_CYCLE * rounds + _CYCLE[: _OFFSETS[rest]])[1:]


def answer_part(first: int, tokens: int) -> str:
    """The words `first` to `first + tokens` of such a text, with the space before each."""
    part = "".join(_WORDS[index % len(_WORDS)] for index in range(first, first + tokens))
    return part if first else part[1:]


def quarter_count(text: str) -> int:
    """Tokens of a text, taken as a quarter of its characters; at least 1 unless it is empty."""
    return (len(text) + 3) // 4
