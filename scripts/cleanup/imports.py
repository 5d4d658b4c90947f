"""Imports of the earlier system's removed modules. Pure.

`app.instance.factory` and `app.instance.manager` gave way to `app.instance.instance_context`.
"""

from __future__ import annotations

import re

PACKAGE = "app.instance"
OLD = ("factory", "manager")
NEW = "instance_context"

_DOTTED = re.compile(rf"(?<![\w.]){re.escape(PACKAGE)}\.(?:{'|'.join(OLD)})(?!\w)")
_FROM = re.compile(
    r"^(?P<head>[ \t]*from[ \t]+)(?P<module>\.*[\w.]*)(?P<middle>[ \t]+import[ \t]*)"
    r"(?P<names>\([^)]*\)|[^\n#;]*)",
    re.MULTILINE,
)
_NAME = re.compile(
    rf"(?P<before>(?:\(|\s|\#[^\n]*\n)*)(?P<old>{'|'.join(OLD)})(?P<alias>\s+as\s+\w+)?(?P<after>[\s)]*)"
)


def rewritten(text: str, package: tuple[str, ...]) -> tuple[str, int]:
    """`text`, a module in `package`, with the new module in place of the old ones; how many."""
    text, dotted = _DOTTED.subn(f"{PACKAGE}.{NEW}", text)
    changed = 0

    def rewrite(found: re.Match[str]) -> str:
        nonlocal changed
        module, names = found["module"], found["names"]
        absolute = _absolute(module, package)
        if _is(absolute, PACKAGE):
            names = ",".join(map(_renamed, names.split(",")))
        elif any(_is(absolute, f"{PACKAGE}.{old}") for old in OLD):
            module = re.sub(r"\w+\Z", NEW, module)
        changed += (module, names) != (found["module"], found["names"])
        return f"{found['head']}{module}{found['middle']}{names}"

    text = _FROM.sub(rewrite, text)
    return text, dotted + changed


def _absolute(module: str, package: tuple[str, ...]) -> str:
    relative = module.lstrip(".")
    dots = len(module) - len(relative)
    if dots == 0:
        return module
    base = package[: len(package) - dots + 1]
    return ".".join([*base, relative] if relative else base)


def _is(module: str, wanted: str) -> bool:
    """The system may lie in a folder below."""
    return module == wanted or module.endswith(f".{wanted}")


def _renamed(item: str) -> str:
    """One name of an import list; what it is called in the module stays the same."""
    found = _NAME.fullmatch(item)
    if found is None:
        return item
    alias = found["alias"] or f" as {found['old']}"
    return f"{found['before']}{NEW}{alias}{found['after']}"
