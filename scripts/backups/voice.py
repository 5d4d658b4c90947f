"""What the commands say: lines for people, or a JSON object per line for programs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


class Voice:
    """Everything goes through here as it happens; none of it is a key.

    `with_time`: lines for people begin with the UTC time, because they come over days.
    """

    def __init__(self, *, as_json: bool, with_time: bool = False) -> None:
        self._as_json = as_json
        self._with_time = with_time

    def say(self, event: str, text: str, **facts: object) -> None:
        """`event` and `facts` are for programs, `text` is for people."""
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        if self._as_json:
            line = json.dumps({"time": now, "event": event, **facts})
        else:
            line = f"{now} {text}" if self._with_time else text
        # A failure is part of what a program asked for; people's output may be piped somewhere.
        to_errors = event == "failed" and not self._as_json
        print(line, file=sys.stderr if to_errors else sys.stdout, flush=True)

    def fail(self, text: str) -> None:
        self.say("failed", text, message=text)
