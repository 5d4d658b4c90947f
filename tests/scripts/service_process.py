"""The service as a process of its own, for tests of what operators do to it from outside."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "admin-key-of-the-tests-0123456789"
_LIMIT_S = 30
"""To start, or to stop."""


def clean_environment(**more: str) -> dict[str, str]:
    """Nothing but what a process needs, `more`, and where the project is."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def running_service(folder: Path) -> Iterator[str]:
    """Serves from `folder`, with the default files there; gives the URL."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "proxy"],
        cwd=folder,
        env=clean_environment(ADMIN_API_KEY=ADMIN_KEY, PORT="0"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    urls: queue.SimpleQueue[str] = queue.SimpleQueue()
    reading = threading.Thread(target=_read, args=(process.stderr, urls), daemon=True)
    reading.start()
    try:
        url = urls.get(timeout=_LIMIT_S)
        assert url.startswith("http"), f"the service did not start: {url}"
        yield url
        process.send_signal(signal.SIGTERM)
        process.wait(_LIMIT_S)
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stderr.close()


def _read(lines: Iterable[str], urls: queue.SimpleQueue[str]) -> None:
    """Finds the URL among the lines of the log, and reads on, so that the pipe never fills up."""
    seen = []
    for line in lines:
        if found := re.search(r"serving on (http://[^\s,\"]+)", line):
            urls.put(found[1])
        seen.append(line)
    urls.put("".join(seen))
