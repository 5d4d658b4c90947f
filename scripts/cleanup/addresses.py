"""The admin API's old addresses in scripts and documents, and their successors. Pure.

| old                                  | new                              |
|--------------------------------------|----------------------------------|
| `/admin/instances/new`               | `/admin/instances`               |
| `/admin/instances/new/{name}/config` | `/admin/instances/{name}/config` |
| `/admin/instances/new/{name}/state`  | `/admin/instances/{name}/state`  |

No instance can be called `new` today, but one may have been: `/admin/instances/new/config` is not
one of the old addresses, and is left to a person.
"""

from __future__ import annotations

import re

_END = r"""(?: \Z | [\s"'`?\#)\]}>|,;&!*\\] | </ | [.:](?=[\s"'`)]|\Z) )"""
"""What can't go on with an address: a quote, a space, a query, the full stop of a sentence."""

_OLD = re.compile(
    rf"""
    (/admin/instances)/new
    (?= {_END}
      | /{_END}
      | /new/(?:config|state){_END}
      | /(?! {_END} | new/ | (?:config|state|new)/?{_END} )
    )
    """,
    re.VERBOSE,
)

_DOUBTFUL = re.compile(
    r"""instances \\*/+ new (?![\w-]) | ["']instances["'] \s*,\s* ["']new["']""", re.VERBOSE
)
"""Addresses that are put together from parts, or written in some other way."""


def rewritten(text: str) -> tuple[str, int]:
    """`text` with the successors in place of the old addresses, and how many there were."""
    return _OLD.subn(r"\1", text)


def doubtful_lines(text: str) -> list[int]:
    """The numbers of lines with what may be an old address, for a person to look at."""
    return [text.count("\n", 0, match.start()) + 1 for match in _DOUBTFUL.finditer(text)]
