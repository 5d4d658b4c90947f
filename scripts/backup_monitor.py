"""Backs up, watches and restores the configuration and state files: see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backups.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
