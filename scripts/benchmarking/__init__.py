"""What `scripts/benchmark.py` consists of; `docs/performance.md` explains how it measures."""
