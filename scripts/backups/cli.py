"""The start of `backup_monitor.py`: environment, settings, arguments, signals."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import project_environment

from . import arguments, commands
from .voice import Voice

if TYPE_CHECKING:
    from collections.abc import Mapping

INTERRUPTED = 130


def main(words: list[str]) -> int:
    """Runs one command; returns its exit status. `SystemExit` for wrong usage and `--help`."""
    project_environment.make_output_safe()
    has_environment = project_environment.enter("pydantic", "filelock", "trio", "dotenv")
    options = arguments.parse(words, _variables() if has_environment else os.environ)
    voice = Voice(as_json=options.json, with_time=options.command in ("monitor", "job"))
    # A shell ignores Ctrl-C for what it starts in the background, and Python would follow.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return commands.run(options, voice)
    except KeyboardInterrupt:
        voice.fail("interrupted")
        return INTERRUPTED


def _variables() -> Mapping[str, str]:
    """The environment, completed by `.env` as the service does."""
    from proxy.settings import SettingsError, environment

    try:
        return environment(os.environ, Path(".env"))
    except SettingsError as error:
        raise SystemExit(str(error)) from None
