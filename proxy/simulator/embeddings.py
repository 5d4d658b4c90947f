"""Embeddings: vectors that are the same for the same input, as floats or in base64."""

from __future__ import annotations

import random
import sys
from array import array
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from zlib import crc32

from pydantic_core import to_json

from proxy.simulator import catalogue, fields
from proxy.simulator.completions import read_inputs
from proxy.simulator.run import Ask, Run, Whole

if TYPE_CHECKING:
    from proxy.simulator.deployment import Deployment
    from proxy.simulator.fields import Body
    from proxy.simulator.surface import Address

_DIMENSIONS = 1536
_LARGE_DIMENSIONS = 3072
_BLOCK = 64


def read(body: Body, address: Address, deployment: Deployment) -> Ask:
    """Errors: `ApiError` for anything that the service refuses about the request itself."""
    del address
    if "input" not in body:
        raise catalogue.missing("input")
    text, tokens, inputs = read_inputs(body["input"], "input")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise catalogue.wrong_value("encoding_format", "'float' or 'base64'")
    fields.integer(body, "dimensions", most=_most_dimensions(deployment))
    return Ask(body, text, tokens, "input", generates=False, choices=inputs)


def _most_dimensions(deployment: Deployment) -> int:
    return _LARGE_DIMENSIONS if deployment.model.endswith("-large") else _DIMENSIONS


def whole(ask: Ask, run: Run) -> Whole:
    """The answer; it is never streamed."""
    inputs = ask.body["input"]
    if ask.choices == 1 and (type(inputs) is str or type(inputs[0]) is int):
        inputs = [inputs]
    dimensions = ask.body.get("dimensions") or _most_dimensions(run.deployment)
    in_base64 = ask.body.get("encoding_format") == "base64"
    entries: list[dict[str, Any]] = []
    for index, value in enumerate(inputs):
        vector = embedding(value, dimensions)
        coded = b64encode(_little_endian(vector)).decode() if in_base64 else vector.tolist()
        entries.append({"object": "embedding", "index": index, "embedding": coded})
    used = {"prompt_tokens": run.input_tokens, "total_tokens": run.input_tokens}
    answer = {"object": "list", "data": entries, "model": run.deployment.model, "usage": used}
    return Whole(to_json(answer))


def embedding(value: str | list[int], dimensions: int) -> array[float]:
    """A vector of length 1 that depends on `value` alone. Single precision.

    One short block of numbers is repeated: cheap, and as good for telling inputs apart.
    """
    rng = random.Random(crc32(repr(value).encode()))  # noqa: S311 - a simulation
    block = [rng.uniform(-1, 1) for _ in range(_BLOCK)]
    numbers = (block * (dimensions // _BLOCK + 1))[:dimensions]
    norm = sum(number * number for number in numbers) ** 0.5
    return array("f", [number / norm for number in numbers])


def _little_endian(vector: array[float]) -> bytes:
    if sys.byteorder == "big":
        vector.byteswap()
    return vector.tobytes()
