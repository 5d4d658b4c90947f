"""The id under which a request is found in logs, headers and explanations."""

from __future__ import annotations

import re
import secrets
from itertools import count
from typing import Final

_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PREFIX: Final = secrets.token_hex(6).encode()
_numbers = count(1)


def request_id(given: bytes | None) -> bytes:
    """The client's own id if it is harmless in a log, a header and a URL; else a new one.

    New ids are unique: random for this process, counted within it.
    """
    if given is not None and _ACCEPTED.fullmatch(given):
        return given
    return b"%b-%08x" % (_PREFIX, next(_numbers))
