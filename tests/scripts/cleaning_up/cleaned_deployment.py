"""A deployment of the earlier system, and what the clean-up should make of it."""

from __future__ import annotations

from pathlib import Path

import earlier_deployment as earlier
from cleanup import cli

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "cleanup_old_implementation.py"
BACKUP = "backup_old_implementation"

DATA = {
    "keyed": {"instance_data.json": earlier.KEYED},
    "listed": {"instance_data.json": earlier.LISTED},
    "yaml": {"instance_data.yaml": earlier.AS_YAML},
}
EXPECTED_SCRIPTS = {
    ".env": (
        f"# settings\nADMIN_API_KEY={earlier.ADMIN_KEY}\nPORT=8000\n"
        "INSTANCE_CONFIG_FILE=instance_configs.json\nINSTANCE_STATE_FILE=instance_states.json\n"
    ),
    "app/main.py": (
        "import app.instance.instance_context\n"
        "from app.instance.instance_context import create\n"
        "from app.instance import instance_context as manager, new_router\n"
        "from app.instance.manager_base import Base\n\n"
        "print(app.instance.instance_context.create(), manager, create, new_router, Base)\n"
    ),
    "app/routers/admin.py": "from ..instance.instance_context import instance_manager\n",
    "app/instance/new_router.py": (
        "from .instance_context import create\n"
        "from . import instance_context as f, instance_context as manager\n"
    ),
    "clients/report.sh": (
        '#!/bin/sh\ncurl "http://localhost:8000/admin/instances" \\\n'
        f'  -H "X-Admin-API-Key: {earlier.ADMIN_KEY}"\r\n'
        'curl "http://localhost:8000/admin/instances/$NAME/state"'
    ),
    "clients/client.py": 'URL = f"{BASE}/admin/instances/{name}/config"\n',
    "clients/app.js": "fetch('/admin/instances/' + name + '/state')\n",
    "clients/types.ts": "const all = `${base}/admin/instances?full=1`;\n",
    "clients/calls.http": "PUT http://localhost:8000/admin/instances/azure2/config\n",
    "clients/deploy.yaml": "url: http://localhost:8000/admin/instances\n",
    "docs/runbook.md": "Ask `/admin/instances`. Not /admin/instances/newest/config.\n",
}


def run(root: Path, *words: str) -> int:
    return cli.main(["--root", str(root), *words])


def text(path: Path) -> str:
    return path.read_bytes().decode()


def without_backup(root: Path) -> dict[str, tuple[object, ...]]:
    found = earlier.snapshot(root)
    return {path: what for path, what in found.items() if not path.startswith(BACKUP)}
