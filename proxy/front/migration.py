"""`POST /admin/instances/migrate`: the earlier system's data become instances of this one.

The body is the document, JSON or YAML; without a body it is the file that `INSTANCE_DATA_FILE`
names. Options are query parameters, because every key of the document may be an instance's name.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from quart import request
from werkzeug.exceptions import BadRequest

from actors.documents import MAX_BYTES
from actors.errors import BrokenFile, InvalidChange, StoreFailed
from actors.migration import plan_migration, read_document
from proxy.front.options import switches

if TYPE_CHECKING:
    from quart import Blueprint

    from actors.migration import MigrationPlan
    from actors.store import EarlierData
    from proxy.front.admin import Administration, Answer


class MigrationApi:
    """The view. `data`: the file to read, and beside which the old data are backed up."""

    def __init__(self, administration: Administration, data: EarlierData) -> None:
        self._administration = administration
        self._data = data

    def add_to(self, api: Blueprint) -> None:
        api.add_url_rule("/instances/migrate", "migrate", self.migrate, methods=["POST"])

    async def migrate(self) -> Answer:
        """Nothing is written if nothing would change, so that a second time is as good as none."""
        overwrite, dry_run = switches("overwrite", "dry_run")
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        content, document = await trio.to_thread.run_sync(self._read, body)
        configs = {
            name: instance.config for name, instance in (await self._administration.read()).items()
        }
        plan = await trio.to_thread.run_sync(
            partial(plan_migration, document, configs, overwrite=overwrite)
        )
        if dry_run or not plan.configs:
            return _answer(plan, dry_run=dry_run)
        backup = await trio.to_thread.run_sync(self._back_up, content)
        plan = await self._administration.migrate(document, overwrite=overwrite)
        return _answer(plan, backup=backup)

    def _read(self, body: bytes) -> tuple[bytes, object]:
        """The document as it is written, and what it says. In a thread."""
        if body.strip():
            try:
                return body, read_document(body, "the body")
            except BrokenFile as error:
                raise BadRequest(f"the body can't be read: {error.place}: {error.reason}") from None
        path = self._data.path
        try:
            content = self._data.read(MAX_BYTES)
        except OSError as error:
            raise InvalidChange([("document", f"{path}: {error.strerror}")]) from error
        if content is None:
            reason = f"the body is empty, and there is no {path} (INSTANCE_DATA_FILE)"
            raise InvalidChange([("document", reason)])
        try:
            return content, read_document(content, path)
        except BrokenFile as error:
            raise InvalidChange([("document", str(error))]) from None

    def _back_up(self, content: bytes) -> str:
        try:
            return self._data.back_up(content)
        except OSError as error:
            reason = f"the old data could not be backed up beside {self._data.path}"
            raise StoreFailed(f"{reason}: {error.strerror}; nothing was migrated") from error


def _answer(
    plan: MigrationPlan, *, dry_run: bool = False, backup: str | None = None
) -> tuple[dict[str, Any], int]:
    """Of the unknown fields only the names: nobody here knows what they hold."""
    verb = "would be migrated" if dry_run else "migrated"
    return {
        "status": "success",
        "message": f"{verb}: {len(plan.configs)}; skipped: {len(plan.skipped)}; "
        f"unchanged: {len(plan.unchanged)}",
        "dry_run": dry_run,
        "backup": backup,
        "migrated": list(plan.configs),
        "skipped": plan.skipped,
        "unchanged": list(plan.unchanged),
        "unknown": {name: list(fields) for name, fields in plan.unknown.items()},
        "warnings": list(plan.warnings),
    }, 200
