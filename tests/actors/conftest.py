from __future__ import annotations

import pytest

from actors.clock import WallClock


@pytest.fixture
def one_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall time goes with the virtual clock, also from one system to the next."""
    monkeypatch.setattr(WallClock, "start", classmethod(lambda cls: cls(1_700_000_000.0)))
