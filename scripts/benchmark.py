"""Measures this service beside its peers: `python scripts/benchmark.py [--quick]`."""

import sys

from benchmarking.cli import main

if __name__ == "__main__":
    sys.exit(main())
