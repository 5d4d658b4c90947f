"""A request whose length decides is counted exactly, in a process that goes with the service."""

from __future__ import annotations

import json
from pathlib import Path

from whole_service import chat, instance, whole_service

SHORT_WORDS = [{"role": "user", "content": "1 " * 40}]
"""By its length 20 tokens, in truth some 80."""


def children() -> set[str]:
    """Whichever thread has started them."""
    lists = Path("/proc/self/task").glob("*/children")
    return {child for each in lists for child in each.read_text().split()}


async def test_what_only_a_count_can_decide_is_counted_in_one_child(tmp_path: Path) -> None:
    # Nobody listens there: only a request that is thought to fit would find out.
    east = instance("http://127.0.0.1:1", max_input_tokens=50)
    async with whole_service(tmp_path, {"east": east}) as whole:
        before = children()
        status, body = await whole.ask(chat(messages=SHORT_WORDS))
        assert status == 400
        assert json.loads(body)["error"]["code"] == "context_length_exceeded"
        [child] = children() - before
        assert (await whole.ask(chat(messages=SHORT_WORDS)))[0] == 400
        assert children() - before == {child}
    assert children() == before
