"""Configurations and traffics for the tests of planning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "input_tokens": {"kind": "uniform", "least": 50, "most": 250},
    "output_tokens": {"kind": "constant", "tokens": 60},
    "max_tokens": {"kind": "fixed", "tokens": 60},
}


def spec(**fields: Any) -> dict[str, Any]:
    """A minute of a hundred requests, unless `fields` say otherwise."""
    return {"duration_s": 60, "requests_per_minute": 100, "requests": [CHAT], **fields}


def instances(**tpm: int) -> dict[str, Any]:
    return {
        name: {
            "api_key": "${A_KEY_THAT_NOBODY_HAS_SET}",
            "api_base": f"https://{name}.example.com",
            "supported_models": ["gpt-4o"],
            "max_tpm": limit,
        }
        for name, limit in tpm.items()
    }


def written(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path
