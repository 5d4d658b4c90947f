"""Measures this service beside its peers: `python scripts/benchmark.py [--quick]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarking.cli import main

if __name__ == "__main__":
    sys.exit(main())
