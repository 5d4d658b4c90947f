"""Takes a deployment of the earlier system over to this one: see `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cleanup.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
