"""The command `cleanup_old_implementation.py`."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import project_environment

from . import applying, conversion, diff, dotenv, planning, survey
from .change import Change, Plan
from .safekeeping import ASIDE, BackupUnusable, Safekeeping

if TYPE_CHECKING:
    from .conversion import Places

DONE, FAILED, INTERRUPTED = 0, 1, 130

_EPILOG = """\
exit status:
  0    done, or there was nothing to do. Records that were skipped are listed as notes
  1    a file could not be read, written or converted; the rest is done
  2    wrong usage
  130  interrupted; what was done until then can be undone with --restore

Twice is the same as once. No key is ever printed. The backup folder holds keys: only this account
can read it. Once everything works: rm -rf backup_old_implementation/
"""


def main(words: list[str]) -> int:
    """Cleans up, or shows how, or undoes it; returns the exit status."""
    project_environment.make_output_safe()
    has_environment = project_environment.enter("pydantic", "filelock", "trio", "yaml")
    options = _arguments(words)
    root: Path = options.root.resolve()
    if not root.is_dir():
        print(f"{options.root} is no folder", file=sys.stderr)
        return FAILED
    variables = _variables(root)
    where = conversion.places(root, options.data_files, variables)
    try:
        if options.restore:
            return _restore(root, where)
        plan = Plan()
        if where.data and has_environment:
            for name, value in variables.items():
                os.environ.setdefault(name, value)  # for keys that are references
            conversion.add_conversion(root, where, plan)
        elif where.data:
            reason = f"not converted: {project_environment.HOW_TO_MAKE_IT}, then run this again"
            plan.failures += [(path, reason) for path in where.data]
        planning.add_text_changes(root, plan, {*where.data, where.config, where.state})
        if options.dry_run:
            return _show(plan)
        return _clean_up(root, where, plan)
    except KeyboardInterrupt:
        print("interrupted; --restore undoes what was done", file=sys.stderr)
        return INTERRUPTED


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cleanup_old_implementation.py",
        description="Takes a deployment of the earlier system, or a folder of client scripts, over "
        "to this one: makes backup_old_implementation/, converts the instances' data, brings .env "
        "up to date, rewrites old admin addresses and imports, removes what was replaced.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="FOLDER", help="default: the current folder"
    )
    parser.add_argument(
        "--data-file",
        dest="data_files",
        action="append",
        default=[],
        metavar="FILE",
        help="combined data to be converted, relative to the root; may be given more than once "
        f"(default: what INSTANCE_DATA_FILE names, and {', '.join(conversion.DATA_FILES)})",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--dry-run", action="store_true", help="show a diff, and change nothing")
    either.add_argument("--restore", action="store_true", help="undo it exactly")
    return parser.parse_args(words)


def _variables(root: Path) -> dict[str, str]:
    """What is set for the deployment: in its `.env` files, or here, which wins."""
    found: dict[str, str] = {}
    for path in reversed(planning.ENV_FILES):
        try:
            text = (root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:  # reported when it is its turn to be brought up to date
            continue
        found |= dotenv.values(text)
    return found | {name: value for name, value in os.environ.items() if value}


def _show(plan: Plan) -> int:
    for change in plan.changes:
        for line in diff.lines(change, plan.secrets):
            print(line)
    _summarise(plan, plan.changes)
    print("Nothing was changed (--dry-run).")
    return FAILED if plan.failures else DONE


def _clean_up(root: Path, where: Places, plan: Plan) -> int:
    if not plan.changes:
        _summarise(plan, [])
        print("There is nothing to do." if not plan.failures else "Nothing was changed.")
        return FAILED if plan.failures else DONE
    keeping = Safekeeping(root)
    try:
        run = keeping.keep(plan)
    except OSError as error:
        print(f"{keeping.folder}: {survey.reason(error)}; nothing was changed", file=sys.stderr)
        return FAILED
    done = applying.apply(root, where, plan)
    if len(done) < len(plan.changes):
        keeping.record(run, done)
    _summarise(plan, done)
    if done:
        print(f"How it was before is in {run.relative_to(root)}/; --restore undoes it.")
    if done and plan.aside:
        print(f"Fields without a meaning here are in {(run / ASIDE).relative_to(root)}.")
    print(f"{len(done)} done, {len(plan.failures)} failed.")
    return FAILED if plan.failures else DONE


def _restore(root: Path, where: Places) -> int:
    keeping = Safekeeping(root)
    runs = keeping.runs()
    if not runs:
        print(f"{keeping.folder} holds nothing to restore", file=sys.stderr)
        return FAILED
    failures = 0
    try:
        with ExitStack() as stack:
            if keeping.touched() & set(where.instances):
                stack.enter_context(conversion.no_service_runs_on(root, where))
            for run in reversed(runs):
                for path, done, failure in keeping.undo(run):
                    if failure is not None:
                        failures += 1
                        print(f"FAILED    {path}: {failure}")
                    elif done:
                        print(f"restored  {path}: {done}")
    except (BackupUnusable, conversion.Obstacle) as why:
        print(f"{why}; nothing more was restored", file=sys.stderr)
        return FAILED
    print("Everything is as it was." if not failures else "The rest is as it was.")
    return FAILED if failures else DONE


def _summarise(plan: Plan, done: list[Change]) -> None:
    for change in done:
        print(f"{change.verb}   {change.path}: {change.why}")
    for note in plan.notes:
        print(f"note      {diff.masked(note, plan.secrets)}")
    for path, reason in plan.failures:
        print(f"FAILED    {path}: {reason}")
