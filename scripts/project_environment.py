"""The environment that `./scripts/run` makes, for scripts that any Python may have started.

Like the scripts that begin with it, this needs nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
HOW_TO_MAKE_IT = (
    f"the project's environment is missing; {REPOSITORY}/scripts/run --version makes it"
)


def enter(*modules: str) -> bool:
    """Whether `modules` can be imported from here on.

    Where this interpreter lacks them, the script is started anew with that of `.venv`, and this
    does not return. False: there is no environment that has them, as `HOW_TO_MAKE_IT` says.
    """
    if all(importlib.util.find_spec(module) for module in modules):
        return True
    venv = REPOSITORY / ".venv"
    python = venv / "bin" / "python"
    if Path(sys.prefix) != venv and os.access(python, os.X_OK):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(python, [str(python), *sys.argv])
    return False


def make_output_safe() -> None:
    """What can't be encoded, such as an odd file name, is printed escaped instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
