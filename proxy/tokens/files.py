"""What a file in a request costs in input tokens, as far as its length tells.

There is no published rule. Of a PDF the model gets the text and an image of every page ("File
inputs", developers.openai.com), of other documents the text: nothing of that can be seen without
reading the file.
"""

from __future__ import annotations

from typing import Final

_LONGEST_HEAD_CHARS: Final = 256
"""Media type and parameters before the comma; real ones have about 20 characters."""
_TEXT_TYPES: Final = ("data:text/", "data:application/json")
_TEXT_BYTES_PER_TOKEN: Final = 4
_BYTES_PER_TOKEN: Final = 100
"""A page with its image is 1 000 to 2 000 tokens, and mostly 50 to 200 KB."""

MOST_TOKENS: Final = 20_000
"""Of a file that is no text. Large ones are large by their images; a guess that exceeds an
instance's whole minute would keep the request from ever being sent."""


def file_tokens(data: str) -> int:
    """Input tokens of one file, given as a base64 data: URL or as base64 alone. A guess."""
    head = data.find(",", 0, _LONGEST_HEAD_CHARS) + 1
    content_bytes = (len(data) - head) * 3 // 4
    if data.startswith(_TEXT_TYPES):
        return content_bytes // _TEXT_BYTES_PER_TOKEN
    return min(content_bytes // _BYTES_PER_TOKEN, MOST_TOKENS)
