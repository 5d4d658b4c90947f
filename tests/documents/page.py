"""A page of the documentation as the steps that a reader takes.

The convention. Fenced blocks start in the first column, and are taken in their order:

- `bash` and `python` blocks are run, each on its own, in one folder for the whole page. They have
  to succeed.
- A `json` or `text` block that follows one of them is what it printed, both outputs together.
- A comment in the line above a block says what is different:
  `<!-- file: NAME -->`    the block is what NAME holds; it is written
  `<!-- exit: N -->`       the block ends with this exit status
  `<!-- service: TEXT -->` the block runs until the page ends; it is ready when it prints TEXT.
                           A port at the end of TEXT stands for whichever port it really has
  `<!-- until: TEXT -->`   Ctrl-C ends the block once it has printed TEXT
  `<!-- not run: WHY -->`  a `bash` or `python` block that can't be run in a test
- Blocks in other languages are for the eye.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = frozenset({"bash", "python"})
ANSWERS = frozenset({"json", "text"})
NOTES = frozenset({"file", "exit", "service", "until", "not run"})
_NOTE = re.compile(r"<!-- ([a-z ]+?)(?:: (.*))? -->")
_FENCE = re.compile(r"```(\w*)")


class OddPage(Exception):
    """The page breaks the convention; the text says where and how."""


@dataclass(frozen=True)
class Block:
    """`line`: number of its opening fence. `notes`: of the comment above it."""

    language: str
    text: str
    line: int
    notes: dict[str, str] = field(default_factory=dict)

    def is_run(self) -> bool:
        return self.language in COMMANDS and not {"file", "not run"} & self.notes.keys()

    def is_answer(self) -> bool:
        return self.language in ANSWERS and not self.notes


@dataclass(frozen=True)
class Step:
    """A block that is run or written, and the block that shows what it prints."""

    block: Block
    answer: Block | None = None


def blocks(text: str) -> Iterator[Block]:
    """Errors: `OddPage`."""
    lines = text.split("\n")
    start: int | None = None
    for number, line in enumerate(lines):
        if re.match(r"\s+```", line):
            raise OddPage(f"line {number + 1}: a fence starts in the first column")
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        language = _FENCE.fullmatch(lines[start])
        if language is None:
            raise OddPage(f"line {start + 1}: a fence names a language, and nothing else")
        notes = _notes(lines[start - 1], start)
        yield Block(language[1], "\n".join(lines[start + 1 : number]) + "\n", start + 1, notes)
        start = None
    if start is not None:
        raise OddPage(f"line {start + 1}: the block has no end")


def steps(text: str) -> list[Step]:
    """What is to be done on the page. Errors: `OddPage`."""
    found: list[Step] = []
    before: Block | None = None
    for block in blocks(text):
        if block.is_answer():
            if before is None or not before.is_run():
                raise OddPage(f"line {block.line}: what is this block the answer to?")
            found[-1] = Step(before, block)
        elif block.is_run() or "file" in block.notes:
            found.append(Step(block))
        before = block
    return found


def _notes(above: str, line: int) -> dict[str, str]:
    note = _NOTE.fullmatch(above)
    if note is None:
        return {}
    if note[1] not in NOTES:
        raise OddPage(f"line {line}: {note[1]!r} is none of {', '.join(sorted(NOTES))}")
    return {note[1]: note[2] or ""}
