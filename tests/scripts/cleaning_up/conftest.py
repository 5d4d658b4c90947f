"""What tests of the clean-up begin with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import earlier_deployment as earlier
import pytest
from cleaned_deployment import DATA


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """None of the variables that the script reads, and afterwards those that were there."""
    before = dict(os.environ)
    for name in [*os.environ]:
        if name.startswith("INSTANCE_"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=DATA)
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return earlier.build(tmp_path / "deployment", DATA[request.param])


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    return earlier.build(tmp_path / "deployment", DATA["keyed"])
