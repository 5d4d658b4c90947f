"""Moderations: OpenAI's own operation, for upstreams that speak the plain dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import to_json

from proxy.simulator import catalogue
from proxy.simulator.completions import read_inputs
from proxy.simulator.run import Ask, Run, Whole

if TYPE_CHECKING:
    from proxy.simulator.deployment import Deployment
    from proxy.simulator.fields import Body
    from proxy.simulator.surface import Address

_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit"),
    *("illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent"),
    *("sexual", "sexual/minors", "violence", "violence/graphic"),
)


def read(body: Body, address: Address, deployment: Deployment) -> Ask:
    """Errors: `ApiError` for anything that the service refuses about the request itself."""
    del address, deployment
    if "input" not in body:
        raise catalogue.missing("input")
    text, tokens, inputs = read_inputs(body["input"], "input")
    return Ask(body, text, tokens, "input", generates=False, choices=inputs)


def whole(ask: Ask, run: Run) -> Whole:
    """Nothing is ever flagged."""
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    model = run.deployment.model
    answer = {"id": f"modr-{run.id}", "model": model, "results": [result] * ask.choices}
    return Whole(to_json(answer))
