"""What holds for the repository as a whole: who imports whom, sizes, pins, and what is not said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
MODULE_LINES = 400

# Written so that no pattern matches its own text.
NOT_SAID = {
    "an address of a package registry": (
        r"pypi[.](?:org|python)|pythonhosted[.]org|npmjs[.](?:com|org)|[-](?:index-url|-find-links)"
    ),
    "a folder of one machine": r"(?<![\w.])/(?:work|root|Users)/|(?<![\w.])/tmp/[v]env|[.]pyenv",
    "a number of a planned piece of work": r"(?<![\w/])issues? #?\d{1,2}\b",
    "who or what wrote it": r"co-authored[-]by|\bgenerated (?:with|by) (?:an? )?(?:ai|llm)\b",
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Checks the contracts of pyproject.toml against the packages in `folder`. In a process of
    its own, because it sets up logging for all of the process it runs in."""
    code = f"""
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports({str(ROOT / "pyproject.toml")!r}, no_cache=True, no_logo=True))
"""
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_point_one_way() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_import_the_other_way_is_noticed(tmp_path: Path) -> None:
    for package in ("actors", "proxy"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "actors" / "router.py").write_text("import proxy\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "actors.router -> proxy" in result.stdout


def test_modules_are_small() -> None:
    sizes = {
        path.relative_to(ROOT): len(path.read_text().splitlines())
        for package in ("actors", "proxy", "scripts")
        for path in (ROOT / package).rglob("*.py")
    }
    assert len(sizes) > 10
    assert {path: lines for path, lines in sizes.items() if lines > MODULE_LINES} == {}


def text_files() -> dict[str, str]:
    """Everything that is or would be in the repository, except for what is not text."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    texts = {}
    for name in listing.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.stat().st_size < 1_000_000:
            try:
                texts[name] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
    return texts


def test_files_say_nothing_of_where_and_how_they_were_made() -> None:
    texts = text_files()
    assert "tests/scripts/test_layout.py" in texts
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}: {match[0]}"
        for name, text in texts.items()
        for what, pattern in NOT_SAID.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "https://pypi" + ".org/simple",
        "pip install --extra" + "-" + "index-url x",
        "see /work" + "/shared",
        "/tmp" + "/venv/bin/python",
        "as issue" + " 3 asks",
        "Co-Authored" + "-By: somebody",
    ],
)
def test_what_is_not_said_is_noticed(text: str) -> None:
    assert any(re.search(pattern, text, re.IGNORECASE) for pattern in NOT_SAID.values())


def test_what_may_be_said_is_let_through() -> None:
    text = "encode/httpcore#1093, a framework/ folder, docs/work/, session affinity, issues a key"
    assert not any(re.search(pattern, text, re.IGNORECASE) for pattern in NOT_SAID.values())


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def test_constraints_are_versions_only() -> None:
    text = (ROOT / "constraints.txt").read_text()
    lines = text.splitlines()
    for line in lines:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9]+([.][0-9a-z]+)*", line), line
    assert text.endswith("\n")
    assert list(pins()) == sorted(set(pins()))
    assert len(pins()) == len(lines)


def test_every_declared_requirement_is_pinned_within_its_range() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    declared = [*document["build-system"]["requires"], *project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        declared += extra
    requirements = [Requirement(text) for text in declared]
    ours = canonicalize_name(project["name"])
    wrong = [
        str(requirement)
        for requirement in requirements
        if (name := canonicalize_name(requirement.name)) != ours
        and (name not in pins() or not requirement.specifier.contains(pins()[name]))
    ]
    assert wrong == []
