"""The lines of a `.env` file. Pure."""

from __future__ import annotations

import re

OBSOLETE = "USE_NEW_IMPLEMENTATION"
NEW = {
    "INSTANCE_CONFIG_FILE": "instance_configs.json",
    "INSTANCE_STATE_FILE": "instance_states.json",
}
"""Variable → its default, which becomes visible so that it is easy to find."""

_ASSIGNMENT = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_]\w*)[ \t]*=[ \t]*
    (?: (?P<quoted>"[^"\n]*"|'[^'\n]*') | (?P<plain>(?:[^\n\#]|(?<=\S)\#)*) )""",
    re.MULTILINE | re.VERBOSE,
)


def cleaned(text: str) -> tuple[str, list[str]]:
    """`text` without the obsolete variable and with the new ones; what was done, in words."""
    done = []
    text, removed = re.subn(rf"{_line(OBSOLETE)}[^\n]*(?:\n|\Z)", "", text, flags=re.MULTILINE)
    if removed:
        done.append(f"{OBSOLETE} removed")
    missing = [name for name in NEW if not re.search(_line(name), text, re.MULTILINE)]
    if missing:
        newline = "\r\n" if "\r\n" in text else "\n"
        if text and not text.endswith("\n"):
            text += newline
        text += "".join(f"{name}={NEW[name]}{newline}" for name in missing)
        done.append(f"{', '.join(missing)} added")
    return text, done


def _line(name: str) -> str:
    return rf"^[ \t]*(?:export[ \t]+)?{name}[ \t]*="


def values(text: str) -> dict[str, str]:
    """The variables that are set, as far as a line each can say: no references, no escapes."""
    found = {}
    for match in _ASSIGNMENT.finditer(text):
        value = match["plain"] if match["quoted"] is None else match["quoted"][1:-1]
        found[match["name"]] = value.strip()
    return {name: value for name, value in found.items() if value}
