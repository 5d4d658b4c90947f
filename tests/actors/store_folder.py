"""A folder with the two files, and what is put there."""

from __future__ import annotations

from actors.models import InstanceConfig


def config(name="a", **fields):
    return InstanceConfig(
        **{"name": name, "api_key": "k" * 32, "api_base": "https://a.example", **fields}
    )


def files(folder):
    return sorted(path.name for path in folder.iterdir())
