"""The memory of owners: bounded, the longest unused forgotten first, the same after a restart."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from proxy.bound import journal as journal_module
from proxy.bound.journal import Journal, JournalFile, journal_path
from proxy.bound.owners import MAX_NEWS, Entry, Owners

LOG = logging.getLogger("test")
KEYS = st.sampled_from([f"files/file-{n}" for n in range(8)])
STEPS = st.lists(
    st.tuples(st.sampled_from(["remember", "find", "forget"]), KEYS, st.sampled_from("ab"))
)


def act(owners: Owners, step: tuple[str, str, str]) -> None:
    what, key, owner = step
    if what == "remember":
        owners.remember(key, owner)
    elif what == "find":
        owners.find(key)
    else:
        owners.forget(key)


@given(STEPS, st.integers(1, 6))
def test_it_is_a_bounded_memory_in_order_of_use(steps, limit: int) -> None:
    owners, model = Owners(limit), OrderedDict[str, str]()
    for step in steps:
        act(owners, step)
        what, key, owner = step
        if what == "remember":
            model[key] = owner
            model.move_to_end(key)
            if len(model) > limit:
                model.popitem(last=False)
        elif what == "find" and key in model:
            model.move_to_end(key)
        elif what == "forget":
            model.pop(key, None)
        assert owners.entries() == list(model.items())
        assert len(owners) == len(model) <= limit


@given(st.lists(STEPS, max_size=5), st.integers(1, 6))
def test_news_in_any_portions_rebuild_it(portions, limit: int) -> None:
    owners, told = Owners(limit), list[Entry]()
    for steps in portions:
        for step in steps:
            act(owners, step)
        told += owners.news() or []
    # Use is not news, so the order may be another one.
    assert dict(Owners(limit, told).entries()) == dict(owners.entries())


def test_too_much_news_is_told_as_everything() -> None:
    owners = Owners(2 * MAX_NEWS)
    for number in range(MAX_NEWS + 1):
        owners.remember(f"files/f{number}", "a")
    assert owners.news() is None
    assert owners.news() == []
    owners.remember("files/f", "a")
    owners.remember("files/f", "a")
    assert owners.news() == [("files/f", "a")]
    owners.forget("files/nobody-has-it")
    assert owners.news() == []


ENTRIES = st.lists(
    st.tuples(
        st.from_regex(r"[a-z_]{1,8}/[A-Za-z0-9][A-Za-z0-9_.=-]{0,20}", fullmatch=True),
        st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    ),
    max_size=20,
)


@given(ENTRIES, ENTRIES, st.integers(0, 200))
def test_the_file_gives_back_what_was_written_however_it_was_torn(first, second, torn) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        file = JournalFile(path)
        file.replace(first)
        if second:
            file.append(second)
        assert list(JournalFile(path).load()) == first + second
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - torn] if torn else content)
        again = JournalFile(path)
        left = list(again.load())
        assert left == (first + second)[: len(left)]
        whole_lines = content[: len(content) - torn].count(b"\n") if torn else content.count(b"\n")
        assert len(left) == whole_lines
        assert again.damaged == again.lines - whole_lines


def test_the_file_is_private_and_beside_the_state(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere" / "states.json", tmp_path / "states.json")
    path = journal_path(tmp_path / "states.json")
    assert path == tmp_path / "elsewhere" / "states.json.owners.jsonl"
    file = JournalFile(path)
    assert list(file.load()) == []
    file.append([("files/f", "east")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.replace([("files/g", "east")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == '{"id": "files/g", "instance": "east"}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"id": "files/f"}',
        b'{"id": "files/../f", "instance": "a"}',
        b'{"id": "f", "instance": "a"}',
        b'{"id": 1, "instance": "a"}',
        b'{"id": "files/f", "instance": 1}',
        b'{"id": "files/f", "instance": "a/b"}',
        b'{"id": "files/f", "instance": "' + b"a" * 5000 + b'"}',
    ],
)
def test_a_line_that_is_none_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "x.jsonl"
    good = b'{"id": "files/good", "instance": "a"}\n'
    path.write_bytes(good + line + b"\n" + good)
    file = JournalFile(path)
    assert list(file.load()) == [("files/good", "a")] * 2
    assert file.damaged


def load(path: Path) -> dict[str, str | None]:
    return dict(JournalFile(path).load())


async def run_for(seconds: float, journal: Journal) -> None:
    with trio.move_on_after(seconds):
        await journal.run()


class WatchedFile(JournalFile):
    """Tells when something has been added to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.grown = trio.Event()

    def append(self, entries: Sequence[Entry]) -> None:
        super().append(entries)
        trio.from_thread.run_sync(self.grown.set)


async def test_it_follows_a_moment_behind_and_writes_the_rest_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "INTERVAL_S", 0.01)
    file, owners = WatchedFile(tmp_path / "x.jsonl"), Owners(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Journal(file, owners, LOG).run)
        owners.remember("files/f", "east")
        await file.grown.wait()
        assert load(file.path) == {"files/f": "east"}
        owners.remember("files/g", "west")
        owners.forget("files/f")
        nursery.cancel_scope.cancel()
    assert Owners(100, JournalFile(file.path).load()).entries() == [("files/g", "west")]


async def test_the_order_of_use_outlives_a_restart(tmp_path: Path) -> None:
    file, owners = JournalFile(tmp_path / "x.jsonl"), Owners(3)
    for name in "abc":
        owners.remember(f"files/{name}", "east")
    await run_for(0.0, Journal(file, owners, LOG))
    owners.find("files/a")
    await run_for(0.0, Journal(file, owners, LOG))
    again = Owners(3, file.load())
    assert again.entries() == owners.entries()
    again.remember("files/d", "east")
    assert again.find("files/a") == "east"
    assert again.find("files/b") is None


async def test_a_file_that_has_grown_or_is_damaged_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SPARE_LINES", 3)
    path = tmp_path / "x.jsonl"
    owners = Owners(2)
    file = JournalFile(path)
    for number in range(20):
        owners.remember(f"files/f{number}", "a")
        await run_for(0.0, Journal(file, owners, LOG))
        assert file.lines <= 2 * 2 + 3
    assert load(path) == {"files/f18": "a", "files/f19": "a"}
    path.write_bytes(path.read_bytes() + b'{"id": "fil')
    file = JournalFile(path)
    owners = Owners(2, file.load())
    owners.remember("files/new", "b")
    await run_for(0.0, Journal(file, owners, LOG))
    assert path.read_bytes().count(b"\n") == 2
    assert load(path) == {"files/f19": "a", "files/new": "b"}


async def test_what_could_not_be_written_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    file = JournalFile(folder / "x.jsonl")
    owners = Owners(10)
    journal = Journal(file, owners, LOG)
    owners.remember("files/f", "a")
    await run_for(0.0, journal)
    await run_for(0.0, journal)
    assert [record.message for record in caplog.records] == [
        f"owners not saved: {file.path}: No such file or directory"
    ]
    folder.mkdir()
    await run_for(0.0, journal)
    assert load(file.path) == {"files/f": "a"}
