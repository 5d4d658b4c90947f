"""Shows what the capacity of this service holds: `python scripts/capacity.py [--sockets]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from capacity_trials.cli import main

if __name__ == "__main__":
    sys.exit(main())
