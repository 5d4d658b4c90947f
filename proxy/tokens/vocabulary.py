"""The two tiktoken encodings, built from the vocabulary files in this package.

tiktoken's own constructors fetch these files over HTTP; nothing here touches the network, the
environment or tiktoken's cache directory. Nothing is loaded at import: the first use of an
encoding builds it, and it stays for the life of the process.

Measured with tiktoken 0.14 on CPython 3.11, one shared core: o200k_base takes 0.3 s to parse and
0.25 s to build, and keeps 50 MB; cl100k_base 0.2 s, 0.12 s and 27 MB. The build is one native
call that holds the GIL, so even in a thread it stops everything else for that quarter of a
second. The service therefore builds none: `encoder` does, in a process of its own.
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal, TypeAlias

import tiktoken

if TYPE_CHECKING:
    from collections.abc import Iterable

EncodingName: TypeAlias = Literal["o200k_base", "cl100k_base"]


class BrokenVocabulary(Exception):
    """A shipped vocabulary file is missing or isn't the published one."""


@dataclass(frozen=True, slots=True)
class _Definition:
    sha256: str
    pattern: str
    special_tokens: dict[str, int]


# The published definitions of the two encodings (tiktoken_ext/openai_public.py, tiktoken 0.14).
_DEFINITIONS: dict[EncodingName, _Definition] = {
    "o200k_base": _Definition(
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern="|".join(
            (
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            )
        ),
        special_tokens={"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    "cl100k_base": _Definition(
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern="|".join(
            (
                r"'(?i:[sdmt]|ll|ve|re)",
                r"[^\r\n\p{L}\p{N}]?+\p{L}++",
                r"\p{N}{1,3}+",
                r" ?[^\s\p{L}\p{N}]++[\r\n]*+",
                r"\s++$",
                r"\s*[\r\n]",
                r"\s+(?!\S)",
                r"\s",
            )
        ),
        special_tokens={
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
}


def encoding_name(model: str) -> EncodingName:
    """The encoding of `model`, by tiktoken's tables; o200k_base for every name they don't have.

    Azure's spelling `gpt-35` is understood, and any name that begins with `text-embedding-`: these
    are what people name their deployments after. Encodings that are not shipped (those of retired
    models) count as unknown; `o200k_harmony` splits ordinary text exactly as o200k_base does.
    """
    model = model.lower()
    if model.startswith(("gpt-35", "gpt-3.5", "text-embedding-")):
        return "cl100k_base"
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return "o200k_base"
    return "cl100k_base" if name == "cl100k_base" else "o200k_base"


def encoding_for(model: str) -> tiktoken.Encoding:
    """The encoding of `model`, as `encoding` gives it."""
    return encoding(encoding_name(model))


@cache
def encoding(name: EncodingName) -> tiktoken.Encoding:
    """The encoding, built at its first use: then it blocks for the better part of a second.

    Errors: `BrokenVocabulary`.
    """
    ranks: dict[bytes, int] = {}
    for line in _read(name).splitlines():
        token, rank = line.split()
        ranks[binascii.a2b_base64(token)] = int(rank)
    definition = _DEFINITIONS[name]
    built = tiktoken.Encoding(
        name,
        pat_str=definition.pattern,
        mergeable_ranks=ranks,
        special_tokens=definition.special_tokens,
    )
    # The native side has its own copy, and of the Python side only pickling an encoding needs
    # this dict: emptying it gives back 27 MB (o200k_base) and 13 MB (cl100k_base).
    ranks.clear()
    return built


def encoded_length(texts: Iterable[str], name: EncodingName) -> int:
    """Tokens of all `texts`, each by itself; what looks like a special token in them is text.

    Blocks: see `encoding`, and 0.1 s per megabyte of English. Errors: `BrokenVocabulary`.
    """
    encode = encoding(name).encode_ordinary
    return sum(len(encode(text)) for text in texts)


def verify() -> None:
    """Both files are there and are the published ones. Reads 5 MB; builds nothing.

    Errors: `BrokenVocabulary`.
    """
    for name in _DEFINITIONS:
        _read(name)


def _read(name: EncodingName) -> bytes:
    file = resources.files("proxy.tokens").joinpath("vocabularies", f"{name}.tiktoken")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BrokenVocabulary(f"cannot read the vocabulary {file}: {error}") from error
    if hashlib.sha256(content).hexdigest() != _DEFINITIONS[name].sha256:
        raise BrokenVocabulary(
            f"{file} is not the published {name} vocabulary (its SHA-256 differs); "
            "install this package again"
        )
    return content
