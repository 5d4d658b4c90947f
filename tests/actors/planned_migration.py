"""The plan of a migration into instances that are there already."""

from __future__ import annotations

from actors.migration import plan_migration


def plan(document, existing=(), *, overwrite=False):
    return plan_migration(
        document, {config.name: config for config in existing}, overwrite=overwrite
    )
