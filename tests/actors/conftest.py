from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.clock import WallClock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def one_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall time goes with the virtual clock, also from one system to the next."""
    monkeypatch.setattr(WallClock, "start", classmethod(lambda cls: cls(1_700_000_000.0)))


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    return tmp_path / "configs.json"


@pytest.fixture
def state_path(tmp_path: Path) -> Path:
    return tmp_path / "states.json"
