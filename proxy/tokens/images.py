"""What an image costs in input tokens, by model, detail level and size.

Sources: "Images and vision", developers.openai.com, for tiles, patches and multipliers up to
GPT-5 mini; measurements published by users for GPT-5.2 and later (vybestack/llxprt-code#3483,
omnara-ai/omnara#446). Billed tokens have been seen to differ from all of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from proxy.tokens.image_size import image_size

Size: TypeAlias = tuple[int, int]

_ORIGINAL_PATCHES = 10_000
"""Patch limit for `detail: original`, which GPT-5.4 and later take."""


@dataclass(frozen=True, slots=True)
class _Tiles:
    """A base price, and for every detail level but `low` so much more per square of 512 pixels."""

    base: int
    tile: int

    def tokens(self, size: Size | None, detail: object) -> int:
        if detail == "low":
            return self.base
        return self.base + self.tile * _tiles(size)


@dataclass(frozen=True, slots=True)
class _Patches:
    """Squares of 32 pixels times a multiplier in percent; larger images are scaled down.

    What `low` saves is not published, so it counts like the default.
    """

    percent: int
    high: int = 1536
    default: int = 1536

    def tokens(self, size: Size | None, detail: object) -> int:
        limit = self.high if detail == "high" else self.default
        if detail == "original":
            limit = max(limit, _ORIGINAL_PATCHES)
        return math.ceil(_patches(size, limit) * self.percent / 100)


_DEFAULT = _Tiles(85, 170)

_PRICES: dict[str, _Tiles | _Patches] = {
    "gpt-4o-mini": _Tiles(2833, 5667),
    "gpt-4.1-mini": _Patches(162),
    "gpt-4.1-nano": _Patches(246),
    "gpt-5": _Tiles(70, 140),
    "gpt-5-mini": _Patches(162),
    "gpt-5-nano": _Patches(246),
    "gpt-5.2": _Patches(120),
    "gpt-5.3": _Patches(120),
    "gpt-5.4": _Patches(120, high=2500, default=2500),
    "gpt-5.4-mini": _Patches(162),
    "gpt-5.4-nano": _Patches(246),
    "gpt-5.5": _Patches(120, high=2500, default=_ORIGINAL_PATCHES),
    "gpt-5.6": _Patches(120, high=2500, default=_ORIGINAL_PATCHES),
    "gpt-6": _Patches(120, high=2500, default=_ORIGINAL_PATCHES),
    "o1": _Tiles(75, 150),
    "o3": _Tiles(75, 150),
    "o4-mini": _Patches(172),
    "computer-use": _Tiles(65, 129),
}

_BY_PREFIX = sorted(_PRICES.items(), key=lambda price: -len(price[0]))


def image_tokens(model: str, url: object, detail: object) -> int:
    """Input tokens of one image for `model`; never raises, whatever `url` and `detail` are.

    Anything but a readable data: URL has an unknown size and costs the most that its detail level
    can cost. A model that isn't in the table is priced like GPT-4o.
    """
    size = image_size(url) if isinstance(url, str) else None
    for prefix, price in _BY_PREFIX:
        if model.startswith(prefix):
            return price.tokens(size, detail)
    return _DEFAULT.tokens(size, detail)


def _tiles(size: Size | None) -> int:
    """Squares of 512 after fitting into 2048 x 2048 and bringing the shorter side down to 768."""
    if size is None:
        return 8  # 768 x 2048
    longer, shorter = max(size), min(size)
    if longer > 2048:
        longer, shorter = 2048, max(1, shorter * 2048 // longer)
    if shorter > 768:
        longer, shorter = longer * 768 // shorter, 768
    return math.ceil(longer / 512) * math.ceil(shorter / 512)


def _patches(size: Size | None, limit: int) -> int:
    """Squares of 32 that cover the image, scaled down to at most `limit` of them.

    Scaling keeps the proportions and then shrinks a little more, until one side is a whole number
    of squares.
    """
    if size is None:
        return limit
    width, height = size
    patches = math.ceil(width / 32) * math.ceil(height / 32)
    if patches <= limit:
        return patches
    scale = math.sqrt(limit * 32 * 32 / (width * height))
    across, down = width * scale / 32, height * scale / 32
    if across < 1 or down < 1:
        return limit  # a thread of an image, thinner than one square
    shrink = min(math.floor(across) / across, math.floor(down) / down)
    # Rounding first: a side that is meant to be whole can come out a hair above it.
    return min(limit, math.ceil(round(across * shrink, 6)) * math.ceil(round(down * shrink, 6)))
