"""`POST /admin/config/reload`: what was edited in the configuration file comes into force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.front.options import switches

if TYPE_CHECKING:
    from quart import Blueprint

    from proxy.front.admin import Administration, Answer


class ReloadApi:
    """The view."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def add_to(self, api: Blueprint) -> None:
        api.add_url_rule("/config/reload", "reload", self.reload, methods=["POST"])

    async def reload(self) -> Answer:
        """With `discard`, the file is put back to what is in force, and the edit kept beside it."""
        (discard,) = switches("discard")
        change = await self._administration.reload(discard=discard)
        return {
            "status": "success",
            "message": str(change) or "nothing has changed",
            "added": list(change.added),
            "removed": list(change.removed),
            "changed": {name: list(fields) for name, fields in change.changed.items()},
        }, 200
