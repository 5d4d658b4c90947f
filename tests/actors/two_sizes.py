"""Two instances with limits that a test reaches soon."""

from __future__ import annotations

from harness import instance_config

SMALL, LARGE = (
    instance_config("small", priority=1, max_tpm=100),
    instance_config("large", priority=2, max_tpm=1000),
)
