"""Backs up, watches and restores the configuration and state files: see `--help`."""

import sys

from backups.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
