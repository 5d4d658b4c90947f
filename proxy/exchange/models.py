"""`GET /v1/models`: what the enabled instances serve."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from proxy.errors import NotFound

if TYPE_CHECKING:
    from actors.administration import Administration
    from actors.models import InstanceConfig


class ModelList:
    """Reads the instances anew for every question: it is asked rarely and must be true."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def answer(self, model: str) -> bytes:
        """The list for an empty `model`, else that one. Errors: `NotFound`."""
        configs = [
            instance.config
            for instance in (await self._administration.read()).values()
            if instance.config.enabled
        ]
        if not model:
            owners = _owners(configs)
            listed = [_entry(name, owner) for name, owner in sorted(owners.items())]
            return json.dumps({"object": "list", "data": listed}).encode()
        for config in configs:
            if config.serves(model):
                return json.dumps(_entry(model, config.provider_type)).encode()
        raise NotFound(
            f"The model `{model}` does not exist: no enabled instance serves it.",
            code="model_not_found",
            param="model",
        )


def _owners(configs: list[InstanceConfig]) -> dict[str, str]:
    owners: dict[str, str] = {}
    for config in configs:
        for model in config.models():
            owners.setdefault(model, config.provider_type)
    return owners


def _entry(model: str, owner: str) -> dict[str, Any]:
    # `created` is required by the API's schema; nobody knows it here.
    return {"id": model, "object": "model", "created": 0, "owned_by": owner}
