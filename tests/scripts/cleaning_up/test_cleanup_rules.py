"""How addresses, imports and settings of the earlier system are rewritten."""

from __future__ import annotations

import pytest
from cleanup import addresses, dotenv, imports
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/admin/instances/new", "/admin/instances"),
        ("/admin/instances/new/", "/admin/instances/"),
        ("/admin/instances/new/azure2/config", "/admin/instances/azure2/config"),
        ("/admin/instances/new/{name}/state", "/admin/instances/{name}/state"),
        ("/admin/instances/new/${NAME}/state", "/admin/instances/${NAME}/state"),
        ("/admin/instances/new/<name>/config", "/admin/instances/<name>/config"),
        ("'/admin/instances/new/' + name", "'/admin/instances/' + name"),
        ("/admin/instances/new?a=1", "/admin/instances?a=1"),
        ("See /admin/instances/new.", "See /admin/instances."),
        ("  /admin/instances/new:\n", "  /admin/instances:\n"),
        ("<b>/admin/instances/new</b>", "<b>/admin/instances</b>"),
        ("(/admin/instances/new)", "(/admin/instances)"),
        ('"curl \\"http://h/admin/instances/new\\""', '"curl \\"http://h/admin/instances\\""'),
        # instances that were called so
        ("/admin/instances/new/new/config", "/admin/instances/new/config"),
        ("/admin/instances/new/config/state", "/admin/instances/config/state"),
        ("/admin/instances/new/config", "/admin/instances/new/config"),
        ("/admin/instances/new/state?x", "/admin/instances/new/state?x"),
        ("/admin/instances/new-east/config", "/admin/instances/new-east/config"),
        ("/admin/instances/new.east/config", "/admin/instances/new.east/config"),
        ("/admin/instances/newest", "/admin/instances/newest"),
        ("/admin/instances/azure/new", "/admin/instances/azure/new"),
        ("/superadmin/instances/new", "/superadmin/instances/new"),
    ],
)
def test_addresses(old: str, new: str) -> None:
    assert addresses.rewritten(old) == (new, int(old != new))


@pytest.mark.parametrize(
    "line",
    [
        'BASE + "/instances/new/" + name',
        r'"\/admin\/instances\/new"',
        '["admin", "instances", "new"]',
        "/admin/instances/new{query}",
    ],
)
def test_what_may_be_an_old_address_is_shown_to_a_person(line: str) -> None:
    assert addresses.rewritten(line) == (line, 0)
    assert addresses.doubtful_lines(f"first\n{line}\n") == [2]


PIECES = [
    "/admin/instances",
    "/new",
    "/config",
    "/state",
    "/",
    "new",
    "{name}",
    " ",
    '"',
    ".",
    "\n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_rewriting_addresses_twice_is_rewriting_them_once(written: str) -> None:
    once, _ = addresses.rewritten(written)
    assert addresses.rewritten(once) == (once, 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "from app.instance import (\n    factory,  # old\n    manager as m,\n    router,\n)\n",
            "from app.instance import (\n    instance_context as factory,  # old\n"
            "    instance_context as m,\n    router,\n)\n",
        ),
        ("    from app.instance import factory # x", None),
        ("from app.instance.factory import (\n    a,\n    b,\n)", None),
        ("patch('app.instance.manager.time')", "patch('app.instance.instance_context.time')"),
        ("import app.instance.manager as m", "import app.instance.instance_context as m"),
        ("from app.instance.manager2 import x", "from app.instance.manager2 import x"),
        ("from other.app_instance import factory", "from other.app_instance import factory"),
        ("from . import factory", "from . import factory"),
        ("from ..instance import factory", "from ..instance import instance_context as factory"),
        ("from .manager import x", "from .manager import x"),
        ("factory = manager", "factory = manager"),
    ],
)
def test_imports(old: str, new: str | None) -> None:
    rewritten, count = imports.rewritten(old, ("app", "services"))
    if new is None:
        assert "instance_context" in rewritten
    else:
        assert (rewritten, count > 0) == (new, old != new)
    assert imports.rewritten(rewritten, ("app", "services")) == (rewritten, 0)
    compile(rewritten.strip(), "module", "exec")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("USE_NEW_IMPLEMENTATION=true", ""),
        ("export USE_NEW_IMPLEMENTATION = 'true'\nA=1", "A=1\n"),
        ("A=1\r\nUSE_NEW_IMPLEMENTATION=1\r\n", "A=1\r\n"),
        ("# USE_NEW_IMPLEMENTATION=1\nUSE_NEW_IMPLEMENTATION_2=1\n", None),
        ("", ""),
    ],
)
def test_env_lines(old: str, new: str | None) -> None:
    newline = "\r\n" if "\r\n" in old else "\n"
    added = newline.join(
        ["INSTANCE_CONFIG_FILE=instance_configs.json", "INSTANCE_STATE_FILE=instance_states.json"]
    )
    cleaned, _ = dotenv.cleaned(old)
    assert cleaned == f"{old if new is None else new}{added}{newline}"
    assert dotenv.cleaned(cleaned) == (cleaned, [])


def test_variables_that_are_set_already_stay_as_they_are() -> None:
    env = "INSTANCE_STATE_FILE=/var/s.json\n export INSTANCE_CONFIG_FILE=c.json"
    assert dotenv.cleaned(env) == (env, [])
    assert dotenv.values(env) == {
        "INSTANCE_STATE_FILE": "/var/s.json",
        "INSTANCE_CONFIG_FILE": "c.json",
    }


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = 'b # c' # d", "b # c"),
        ('A="b"', "b"),
        ("A=b#c # d", "b#c"),
        ("A=\n", None),
        ("#A=b", None),
    ],
)
def test_env_values(line: str, value: str | None) -> None:
    assert dotenv.values(line).get("A") == value
