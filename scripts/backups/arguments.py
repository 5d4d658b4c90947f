"""The command line of `backup_monitor.py`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from .archive import LATEST

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPILOG = """\
examples:
  python scripts/backup_monitor.py backup --config-file instance_configs.json \\
      --state-file instance_states.json
  python scripts/backup_monitor.py monitor --file instance_configs.json --interval 300
  python scripts/backup_monitor.py job --config-file instance_configs.json \\
      --state-file instance_states.json --interval 3600

exit status:
  0    done. monitor: the files were well at the last look. job: the last backup was made
  1    something failed, and the output says what. monitor, job: the contrary of the above
  2    wrong usage
  130  interrupted (monitor and job are meant to be: Ctrl-C or SIGTERM ends them with 0 or 1)

With --json, each line of the output is a JSON object with "time" and "event". No key is ever
printed. Settings (INSTANCE_CONFIG_FILE, INSTANCE_STATE_FILE, HOST, PORT, ADMIN_API_KEY) are read
from the environment and from .env.
"""


def parse(arguments: list[str], variables: Mapping[str, str]) -> argparse.Namespace:
    """Errors: `SystemExit`, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="backup_monitor.py",
        description="Backs up, watches and restores the configuration and state files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    output, files, folder, rotation = _shared(variables)
    commands.add_parser(
        "backup",
        parents=[files, folder, rotation, output],
        help="make one backup: both files as they were at one moment",
    )
    job = commands.add_parser(
        "job", parents=[files, folder, rotation, output], help="make a backup again and again"
    )
    _add_interval(job, 3600.0, "a backup")
    _add_monitor(commands.add_parser("monitor", parents=[output], help=_MONITOR), variables)
    restore = commands.add_parser(
        "restore",
        parents=[files, folder, output],
        help="put a backup back, into a running service (--url) or, if none runs, the files",
        description="Without --url both files are replaced; what they said is backed up first. "
        "The memory of owners beside the state file is put back if it is gone. "
        "With --url a running service gets exactly the instances of the backup over its admin "
        "API, with their counters; the running minute stays as the service has seen it.",
    )
    restore.add_argument("backup", nargs="?", default=LATEST, help=f"its name, or {LATEST}")
    restore.add_argument("--url", metavar="URL", help="of the running service")
    restore.add_argument(
        "--admin-key",
        metavar="KEY",
        default=variables.get("ADMIN_API_KEY", ""),
        help="better given as ADMIN_API_KEY: other accounts can see a command line",
    )
    commands.add_parser("list", parents=[folder, output], help="list the backups, and check them")
    return parser.parse_args(arguments)


_MONITOR = "report changes of a file, and what is wrong with it"


def _shared(variables: Mapping[str, str]) -> list[argparse.ArgumentParser]:
    output, files, folder, rotation = (argparse.ArgumentParser(add_help=False) for _ in range(4))
    output.add_argument("--json", action="store_true", help="a JSON object per line")
    for kind in ("config", "state"):
        files.add_argument(
            f"--{kind}-file",
            metavar="FILE",
            default=variables.get(f"INSTANCE_{kind.upper()}_FILE", f"instance_{kind}s.json"),
            help="default: %(default)s",
        )
    folder.add_argument(
        "--backup-dir",
        type=Path,
        metavar="FOLDER",
        default=Path("backups"),
        help="default: %(default)s",
    )
    rotation.add_argument(
        "--max-backups",
        type=_count,
        metavar="N",
        default=24,
        help="keep the latest N, 0: all (default: %(default)s)",
    )
    return [output, files, folder, rotation]


def _add_monitor(monitor: argparse.ArgumentParser, variables: Mapping[str, str]) -> None:
    monitor.description = (
        "Reports each change (which instances, which fields), and a file that is missing, "
        "unreadable or invalid. Looks at the file as the service would."
    )
    monitor.add_argument(
        "--file",
        dest="files",
        action="append",
        required=True,
        metavar="FILE",
        help="may be given twice; one with `state` in its name is taken for a state file",
    )
    _add_interval(monitor, 300.0, "a look")
    monitor.add_argument(
        "--alert-after",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="report a file that has not changed for so long although the service is up",
    )
    monitor.add_argument(
        "--url",
        default=_own_url(variables),
        help="where the service is up if it is (default: %(default)s)",
    )
    monitor.add_argument("--once", action="store_true", help="look once, and end")


def _add_interval(parser: argparse.ArgumentParser, default: float, what: str) -> None:
    parser.add_argument(
        "--interval",
        type=_seconds,
        metavar="SECONDS",
        default=default,
        help=f"between {what} and the next (default: {default:.0f})",
    )


def _own_url(variables: Mapping[str, str]) -> str:
    host = variables.get("HOST", "127.0.0.1")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if variables.get("TLS_CERT_FILE") else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{variables.get('PORT', '3010')}"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10**8 or math.isnan(value):
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value
