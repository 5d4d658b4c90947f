"""What tests of the backups begin with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from backup_site import CONFIGS, STATES, put
from service_process import ROOT


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with both files and the scripts, as in a deployment."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "scripts").symlink_to(ROOT / "scripts")
    put(folder, "config", CONFIGS)
    put(folder, "state", STATES)
    return folder


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command sets handlers; in this process they must not stay."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)
