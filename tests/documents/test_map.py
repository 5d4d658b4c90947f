"""The map in docs/architecture.md names every module of the rooms that it lists file by file."""

from __future__ import annotations

import re

import pytest
from page import ROOT

NOT_NAMED = {"__init__.py", "__main__.py"}
_ROOM = re.compile(r" *(\w+)/ ")
_MODULE = re.compile(r"\b\w+\.py\b")


def named() -> dict[str, set[str]]:
    """Room → the modules that the map names in it, for those where it names any."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    _, _, after = text.partition("## Rooms\n\n```\n")
    found: dict[str, set[str]] = {}
    rooms: list[tuple[int, str]] = []
    for line in after.partition("```")[0].splitlines():
        indent = len(line) - len(line.lstrip())
        while rooms and line and indent <= rooms[-1][0]:
            rooms.pop()
        if match := _ROOM.match(line):
            rooms.append((indent, match[1]))
        elif modules := _MODULE.findall(line):
            found.setdefault("/".join(name for _, name in rooms), set()).update(modules)
    return found


def test_the_rooms_where_most_happens_are_listed_file_by_file() -> None:
    assert named().keys() >= {"actors", "actors/policy", "proxy", "proxy/exchange", "proxy/bound"}


@pytest.mark.parametrize("room", named())
def test_the_map_has_what_is_there_and_nothing_else(room: str) -> None:
    there = {path.name for path in (ROOT / room).glob("*.py")} - NOT_NAMED
    assert named()[room] == there
