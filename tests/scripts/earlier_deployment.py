"""A deployment of the earlier system, as its own scripts would have left it, for tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

KEY_EAST, KEY_WEST = "earlier-east-key-0123456789abcdef", "earlier-west-key-0123456789abcdef"
ADMIN_KEY = "earlier-admin-key-0123456789"

EAST: dict[str, Any] = {
    "name": "east",
    "provider_type": "azure",
    "api_key": KEY_EAST,
    "api_base": "https://east.openai.azure.com",
    "api_version": "2024-05-15",
    "priority": 10,
    "weight": 70,
    "max_tpm": 30000,
    "max_input_tokens": 4000,
    "supported_models": ["gpt-4"],
    "model_deployments": {"gpt-4": "gpt-4-east"},
    "enabled": True,
    "timeout_seconds": 60.0,
    "retry_count": 3,
    "status": "healthy",
    "error_count": 2,
    "total_requests": 120,
    "successful_requests": 118,
    "last_used": 1716000000.5,
    "avg_latency_ms": 850.25,
    "region": "eastus",
}
WEST: dict[str, Any] = {
    "name": "west",
    "api_key": KEY_WEST,
    "api_base": "https://west.openai.azure.com",
    "max_tpm": 10000,
    "supported_models": ["gpt-4"],
    "stats": {"status": "rate_limited", "error_count": 7, "total_requests": 9},
}
BAD: dict[str, Any] = {"name": "bad", "api_key": "bad-key-0123456789abcdef"}

KEYED = json.dumps({record["name"]: record for record in (EAST, WEST, BAD)}, indent=4)
LISTED = json.dumps({"instances": [EAST, WEST, BAD], "routing": {"strategy": "failover"}})
AS_YAML = f"""\
# combined
instances:
  - name: east
    api_key: {KEY_EAST}
    api_base: https://east.openai.azure.com
    supported_models: [gpt-4]
    total_requests: 120
"""

SCRIPTS = {
    ".env": f"# settings\nADMIN_API_KEY={ADMIN_KEY}\nUSE_NEW_IMPLEMENTATION=true\nPORT=8000\n",
    "app/main.py": (
        "import app.instance.factory\n"
        "from app.instance.factory import create\n"
        "from app.instance import manager, new_router\n"
        "from app.instance.manager_base import Base\n\n"
        "print(app.instance.factory.create(), manager, create, new_router, Base)\n"
    ),
    "app/routers/admin.py": "from ..instance.manager import instance_manager\n",
    "app/instance/new_router.py": (
        "from .factory import create\nfrom . import factory as f, manager\n"
    ),
    "app/instance/instance_context.py": "instance_manager = None\n",
    "app/instance/new_manager.py": "class NewInstanceManager: ...\n",
    "app/instance/factory.py": "from app.instance.manager import InstanceManager\n",
    "app/instance/manager.py": "class InstanceManager: ...\n",
    "migration/initialize_new_implementation.py": "import app.instance.factory\n",
    "clients/report.sh": (
        '#!/bin/sh\ncurl "http://localhost:8000/admin/instances/new" \\\n'
        f'  -H "X-Admin-API-Key: {ADMIN_KEY}"\r\n'
        'curl "http://localhost:8000/admin/instances/new/$NAME/state"'
    ),
    "clients/client.py": 'URL = f"{BASE}/admin/instances/new/{name}/config"\n',
    "clients/app.js": "fetch('/admin/instances/new/' + name + '/state')\n",
    "clients/types.ts": "const all = `${base}/admin/instances/new?full=1`;\n",
    "clients/calls.http": "PUT http://localhost:8000/admin/instances/new/azure2/config\n",
    "clients/deploy.yaml": "url: http://localhost:8000/admin/instances/new\n",
    "docs/runbook.md": "Ask `/admin/instances/new`. Not /admin/instances/newest/config.\n",
    "clients/fine.py": "URL = '/admin/instances/new/config'  # the instance called new\n",
    "access.log": "GET /admin/instances/new 200\n",
    "node_modules/x/index.js": "'/admin/instances/new'\n",
    "__pycache__/main.py": "import app.instance.factory\n",
}
LATIN_1 = b"# caf\xe9\ncurl http://localhost:8000/admin/instances/new\n"


def build(root: Path, data: dict[str, str]) -> Path:
    """The deployment in `root`, with `data` as its files of instances."""
    for name, text in {**SCRIPTS, **data}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (root / "clients" / "latin1.sh").write_bytes(LATIN_1)
    (root / "clients" / "report.sh").chmod(0o755)
    (root / ".env").chmod(0o640)
    (root / "clients" / "link.sh").symlink_to("report.sh")
    os.utime(root / "clients" / "report.sh", ns=(10**18, 10**18))
    return root


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below `root`: content, mode and modification time of files, targets of links."""
    return {
        str(path.relative_to(root)): (
            ("link", os.readlink(path))
            if path.is_symlink()
            else ("folder",)
            if path.is_dir()
            else (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        )
        for path in sorted(root.rglob("*"))
    }
