"""The tables of settings and fields name what the code has, with its defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from page import ROOT
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from actors.models import InstanceConfig, InstanceState
from actors.policy.selection import STRATEGIES
from proxy.cli import _parser
from proxy.front.openapi import document
from proxy.settings import Settings, load_settings

PAGE = ROOT / "docs" / "configuration.md"
MODELS = {
    "Fields of an instance's configuration": InstanceConfig,
    "The state file": InstanceState,
}
ANY = {
    InstanceConfig: {"name": "a", "api_key": "k", "api_base": "https://example.com"},
    InstanceState: {"name": "a", "total_requests": 10**6},
}
GENERATED = "made at start"


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the first table under the heading: first cell, without backticks → the others."""
    _, found, below = PAGE.read_text(encoding="utf-8").partition(f" {heading}\n")
    assert found, f"{PAGE.name} has no heading {heading!r}"
    rows: dict[str, list[str]] = {}
    for line in re.split(r"\n#+ ", below)[0].split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1:]
    return rows


def same_names(documented: set[str], there: set[str], where: str) -> None:
    missing, surplus = sorted(there - documented), sorted(documented - there)
    assert not missing, f"{where} lacks {', '.join(missing)}"
    assert not surplus, f"{where} names what is not in the code: {', '.join(surplus)}"


def setting_default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return GENERATED
    match field.default:
        case None | ():
            return "none"
        case bool() as value:
            return f"`{str(value).lower()}`"
        case float() as value:
            return f"`{value:g}`"
        case value:
            return f"`{value}`"


def field_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return f"`{json.dumps(field.get_default(call_default_factory=True))}`"


def test_every_setting_has_a_row_with_its_default() -> None:
    rows = table("Settings")
    fields = {name.upper(): field for name, field in Settings.model_fields.items()}
    same_names(set(rows), set(fields), "docs/configuration.md, Settings,")
    wrong = {
        name: f"says {rows[name][0]}, is {setting_default(field)}"
        for name, field in fields.items()
        if rows[name][0] != setting_default(field)
    }
    assert not wrong


def test_the_example_of_every_setting_is_taken() -> None:
    rows = table("Settings")
    assert all(len(cells) == 4 for cells in rows.values()), "the table has five columns"
    examples = {name: cells[3].strip("`") for name, cells in rows.items()}
    settings = load_settings(examples)  # all at once, because some need others
    for name, value in examples.items():
        got = getattr(settings, name.lower())
        assert got != Settings.model_fields[name.lower()].default, f"{name}: {value} is the default"
        if not isinstance(got, SecretStr | tuple | bool | Path):
            assert str(got) == value or float(got) == float(value)


@pytest.mark.parametrize(("heading", "model"), MODELS.items())
def test_every_field_has_a_row_with_its_default(heading: str, model: type[BaseModel]) -> None:
    rows = table(heading)
    same_names(set(rows), set(model.model_fields), f"docs/configuration.md, {heading},")
    wrong = {
        name: f"says {rows[name][0]}, is {field_default(field)}"
        for name, field in model.model_fields.items()
        if rows[name][0] != field_default(field)
    }
    assert not wrong


@pytest.mark.parametrize(("heading", "model"), MODELS.items())
def test_the_example_of_every_field_is_taken(heading: str, model: type[BaseModel]) -> None:
    for name, cells in table(heading).items():
        value: Any = json.loads(cells[-1].strip("`"))
        shown = model.model_validate({**ANY[model], name: value}).model_dump(mode="json")[name]
        assert shown == value, f"{heading}: the example of {name}"


def test_env_example_names_every_setting_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assigned = dict(re.findall(r"^#(\w+)=(.*)$", text, re.MULTILINE))
    fields = {name.upper(): field for name, field in Settings.model_fields.items()}
    same_names(set(assigned), set(fields), ".env.example")
    for name, field in fields.items():
        default = setting_default(field).strip("`")
        expected = "" if default in ("none", GENERATED) else default
        if name != "ALLOW_ANONYMOUS":  # its default would be of no use as an example
            assert assigned[name] == expected, f".env.example: {name}"


def test_env_example_does_nothing_until_it_is_edited() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").split("\n")
    assert all(not line or line.startswith("#") for line in lines)


def test_the_strategies_are_all_described() -> None:
    same_names(set(table("Strategies")), set(STRATEGIES), "docs/configuration.md, Strategies,")


def test_every_command_is_described() -> None:
    help_text = _parser([]).format_help()
    commands = set(re.findall(r"^    (\w+) {2,}", help_text, re.MULTILINE))
    assert "check" in commands
    same_names(set(table("Commands")), commands, "docs/configuration.md, Commands,")


def test_every_admin_address_is_asked_on_its_page() -> None:
    page = (ROOT / "docs" / "admin-api.md").read_text(encoding="utf-8")
    asked = re.findall(r'-X (\w+) "http://localhost:3010(/[^"?]*)', page)
    assert asked
    for path, operations in document()["paths"].items():
        if path == "/":
            continue
        pattern = re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)))
        for method, operation in operations.items():
            if method == "parameters" or "data plane" in operation["tags"]:
                continue
            if operation.get("deprecated"):  # one of them stands for all
                assert path in page
                continue
            assert any(
                verb.lower() == method and pattern.fullmatch(where) for verb, where in asked
            ), f"docs/admin-api.md has no example of {method.upper()} {path}"
