"""Image generation and editing: one pixel, however large the picture that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from proxy.simulator import catalogue, fields
from proxy.simulator.run import Ask, Run, Whole

if TYPE_CHECKING:
    from proxy.simulator.deployment import Deployment
    from proxy.simulator.fields import Body
    from proxy.simulator.surface import Address

_PIXEL_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
_MOST_IMAGES = 10
_INPUT_IMAGE_TOKENS = 256


def read_generation(body: Body, address: Address, deployment: Deployment) -> Ask:
    """Errors: `ApiError` for anything that the service refuses about the request itself."""
    del address, deployment
    prompt = fields.required_text(body, "prompt")
    images = fields.integer(body, "n", most=_MOST_IMAGES) or 1
    return Ask(body, prompt, 0, "prompt", generates=False, choices=images)


def read_edit(body: Body, address: Address, deployment: Deployment) -> Ask:
    """As a generation, with a picture in a form. Errors: `ApiError`."""
    if not any(isinstance(body.get(name), fields.Upload) for name in ("image", "image[]")):
        raise catalogue.missing("image")
    ask = read_generation(body, address, deployment)
    ask.other_tokens = _INPUT_IMAGE_TOKENS
    return ask


def whole(ask: Ask, run: Run) -> Whole:
    """The pictures in base64, or as addresses when asked for so."""
    as_url = ask.body.get("response_format") == "url"
    image: dict[str, Any] = (
        {"url": f"https://images.invalid/{run.id}.png"} if as_url else {"b64_json": _PIXEL_PNG}
    )
    if run.address.azure:
        image["content_filter_results"] = catalogue.SAFE_RESULT
    answer = {
        "created": run.created,
        "data": [image] * ask.choices,
        "usage": {
            "input_tokens": run.input_tokens,
            "input_tokens_details": {
                "text_tokens": run.input_tokens - ask.other_tokens,
                "image_tokens": ask.other_tokens,
            },
            "output_tokens": 0,
            "total_tokens": run.input_tokens,
        },
    }
    return Whole(to_json(answer))
