from __future__ import annotations

import pytest

from proxy.tokens.vocabulary import encoding_for


@pytest.fixture(scope="session", autouse=True)
def _vocabulary() -> None:
    """Loaded beforehand: a virtual clock takes the thread that would load it for idleness."""
    encoding_for("gpt-4")
