"""What pages refer to is there: pages, headings, files, and the commands of the earlier guides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from page import ROOT, steps
from test_pages_tried import TRIED

from actors.models import InstanceConfig, InstanceState
from actors.policy.headroom import ObstacleReason

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
)
RUN_ELSEWHERE = {
    "docs/capacity.md": "tests/planning",
    "docs/performance.md": "tests/scripts/test_benchmark.py",
}
"""Pages whose commands take too long for `test_pages_tried.py`, and what runs them instead."""
OURS = ("actors", "docs", "proxy", "scripts", "tests")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(rf"`((?:{'|'.join(OURS)})/[\w./-]+\w)`")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

EARLIER_COMMANDS = {
    "admin-api.md": (
        """curl -X GET "http://localhost:3010/admin/instances"
           -H "X-Admin-API-Key: youradminapikey\"""",
        """curl -X GET "http://localhost:3010/admin/instances/azure2/config"
           -H "X-Admin-API-Key: youradminapikey\"""",
        """curl -X PUT "http://localhost:3010/admin/instances/azure2/config"
           -H "Content-Type: application/json"
           -H "X-Admin-API-Key: youradminapikey"
           -d '{"priority": 50}'""",
        """curl -X GET "http://localhost:3010/admin/instances/azure2/state"
           -H "X-Admin-API-Key: youradminapikey\"""",
    ),
    "new_implementation.md": (
        "python scripts/backup_monitor.py backup --config-file instance_configs.json"
        " --state-file instance_states.json",
        "python scripts/backup_monitor.py monitor --file instance_configs.json --interval 300",
        "python scripts/backup_monitor.py job --config-file instance_configs.json"
        " --state-file instance_states.json --interval 3600",
        """curl -X GET "http://localhost:8000/admin/instances"
           -H "X-Admin-API-Key: your-admin-api-key\"""",
        """curl -X GET "http://localhost:8000/admin/instances/your-instance-name/config"
           -H "X-Admin-API-Key: your-admin-api-key\"""",
        "python scripts/cleanup_old_implementation.py",
        "python tests/test_new_implementation.py",
        "rm -rf backup_old_implementation/",
    ),
}
"""The commands of the earlier system's documents, and the page that runs them as they were."""


EARLIER_NAMES = """
    NewInstanceManager ConfigStore StateStore InstanceRouter
    instance_configs.json instance_states.json INSTANCE_CONFIG_FILE INSTANCE_STATE_FILE
    /admin/instances /admin/instances/{instance_name} /admin/instances/{instance_name}/config
    /admin/instances/{instance_name}/state /admin/instances/migrate X-Admin-API-Key
    /admin/instances/new /admin/instances/new/{name}/config /admin/instances/new/{name}/state
    scripts/backup_monitor.py scripts/cleanup_old_implementation.py
    tests/test_new_implementation.py app.main .env instance_context backup_old_implementation/
    app/instance/new_manager.py app/instance/new_router.py app/instance/instance_context.py
    app/instance/factory.py app/instance/manager.py migration/initialize_new_implementation.py
    app/main.py app/routers/admin.py docs/new_implementation.md README.md
"""
"""Everything that has a name in those documents, beside the fields of the two records."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = _HEADING.findall(_BLOCK.sub("", text_of(page)))
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"`", "", heading).lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for target in _LINK.findall(_BLOCK.sub("", text_of(page))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name}: there is no {target}"
        if anchor:
            assert anchor in anchors(there), f"{name}: {target} has no such heading"


@pytest.mark.parametrize("name", PAGES)
def test_every_file_that_is_named_is_there(name: str) -> None:
    for path in _PATH.findall(_BLOCK.sub("", text_of(ROOT / name))):
        assert (ROOT / path).exists(), f"{name}: there is no {path}"


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {target.partition("#")[0] for target in _LINK.findall(text_of(index))}
    missing = {path.name for path in index.parent.glob("*.md")} - linked - {index.name}
    assert not missing, f"docs/README.md does not link {', '.join(sorted(missing))}"


def test_every_page_with_commands_is_tried() -> None:
    """Or each of its commands says why it can't be run in a test."""
    for name in set(PAGES) - set(TRIED):
        commands = re.findall(r"^(.*)\n```(?:bash|python|console)$", text_of(ROOT / name), re.M)
        if all(above.startswith("<!-- not run: ") for above in commands):
            continue
        assert (ROOT / RUN_ELSEWHERE.get(name, "nowhere")).exists(), (
            f"no test runs the commands of {name}: add it to TRIED in test_pages_tried.py, or to "
            "RUN_ELSEWHERE with the test that does"
        )


def commands_run(page: str) -> Iterator[str]:
    for step in steps(text_of(ROOT / "docs" / page)):
        if step.block.is_run():
            yield " ".join(step.block.text.replace("\\\n", " ").split())


@pytest.mark.parametrize("page", EARLIER_COMMANDS)
def test_the_commands_of_the_earlier_documents_are_run_as_they_were(page: str) -> None:
    assert f"docs/{page}" in TRIED
    run = "\n".join(commands_run(page))
    for command in EARLIER_COMMANDS[page]:
        assert " ".join(command.split()) in run, f"docs/{page} does not run: {command}"


def test_the_table_has_everything_of_the_earlier_documents() -> None:
    _, _, tables = text_of(ROOT / "docs/new_implementation.md").partition("## Where everything is")
    there = [line.strip("|").split(" | ")[0] for line in tables.split("\n") if line.startswith("|")]
    names = {*EARLIER_NAMES.split(), *InstanceConfig.model_fields, *InstanceState.model_fields}
    missing = {name for name in names if not any(name in cell for cell in there)}
    assert not missing, f"docs/new_implementation.md has no row for {', '.join(sorted(missing))}"


def first_cells(page: str, column: int) -> set[str]:
    """The words in backticks in one column of all tables."""
    cells = [
        line.strip("|").split(" | ")[column]
        for line in text_of(ROOT / page).split("\n")
        if line.startswith("| ") and line.count(" | ") >= column
    ]
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def test_every_obstacle_is_explained() -> None:
    reasons = {*get_args(ObstacleReason), "model_not_served", "bound_elsewhere"}
    missing = reasons - first_cells("docs/troubleshooting.md", 0)
    assert not missing, f"docs/troubleshooting.md lacks {', '.join(sorted(missing))}"


def test_every_error_code_is_explained() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for path in (ROOT / "proxy").rglob("*.py")
        if "simulator" not in path.parts
    ]
    codes = {code for text in sources for code in re.findall(r'\bcode="(\w+)"', text)}
    missing = codes - first_cells("docs/troubleshooting.md", 1)
    assert codes
    assert not missing, f"docs/troubleshooting.md lacks {', '.join(sorted(missing))}"
