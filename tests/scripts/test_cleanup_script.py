"""`scripts/cleanup_old_implementation.py` on deployments of the earlier system, real files all."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import earlier_deployment as earlier
import pytest
from cleanup import addresses, cli, dotenv, imports
from cleanup.change import Plan
from cleanup.safekeeping import Safekeeping
from hypothesis import given
from hypothesis import strategies as st

from actors.store import ConfigStore, StateStore, open_stores

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "cleanup_old_implementation.py"
BACKUP = "backup_old_implementation"

DATA = {
    "keyed": {"instance_data.json": earlier.KEYED},
    "listed": {"instance_data.json": earlier.LISTED},
    "yaml": {"instance_data.yaml": earlier.AS_YAML},
}
EXPECTED_SCRIPTS = {
    ".env": (
        f"# settings\nADMIN_API_KEY={earlier.ADMIN_KEY}\nPORT=8000\n"
        "INSTANCE_CONFIG_FILE=instance_configs.json\nINSTANCE_STATE_FILE=instance_states.json\n"
    ),
    "app/main.py": (
        "import app.instance.instance_context\n"
        "from app.instance.instance_context import create\n"
        "from app.instance import instance_context as manager, new_router\n"
        "from app.instance.manager_base import Base\n\n"
        "print(app.instance.instance_context.create(), manager, create, new_router, Base)\n"
    ),
    "app/routers/admin.py": "from ..instance.instance_context import instance_manager\n",
    "app/instance/new_router.py": (
        "from .instance_context import create\n"
        "from . import instance_context as f, instance_context as manager\n"
    ),
    "clients/report.sh": (
        '#!/bin/sh\ncurl "http://localhost:8000/admin/instances" \\\n'
        f'  -H "X-Admin-API-Key: {earlier.ADMIN_KEY}"\r\n'
        'curl "http://localhost:8000/admin/instances/$NAME/state"'
    ),
    "clients/client.py": 'URL = f"{BASE}/admin/instances/{name}/config"\n',
    "clients/app.js": "fetch('/admin/instances/' + name + '/state')\n",
    "clients/types.ts": "const all = `${base}/admin/instances?full=1`;\n",
    "clients/calls.http": "PUT http://localhost:8000/admin/instances/azure2/config\n",
    "clients/deploy.yaml": "url: http://localhost:8000/admin/instances\n",
    "docs/runbook.md": "Ask `/admin/instances`. Not /admin/instances/newest/config.\n",
}
REMOVED = (
    "app/instance/factory.py",
    "app/instance/manager.py",
    "migration/initialize_new_implementation.py",
)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """None of the variables that the script reads, and afterwards those that were there."""
    before = dict(os.environ)
    for name in [*os.environ]:
        if name.startswith("INSTANCE_"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=DATA)
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return earlier.build(tmp_path / "deployment", DATA[request.param])


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    return earlier.build(tmp_path / "deployment", DATA["keyed"])


def run(root: Path, *words: str) -> int:
    return cli.main(["--root", str(root), *words])


def text(path: Path) -> str:
    return path.read_bytes().decode()


def without_backup(root: Path) -> dict[str, tuple[object, ...]]:
    found = earlier.snapshot(root)
    return {path: what for path, what in found.items() if not path.startswith(BACKUP)}


# -- the whole of it ---------------------------------------------------------------------------


def test_cleaned_checked_and_restored_byte_for_byte(
    deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(deployment)
    assert run(deployment) == 0
    after = earlier.snapshot(deployment)

    for name, expected in EXPECTED_SCRIPTS.items():
        assert text(deployment / name) == expected
        assert after[name][1] == before[name][1], f"the mode of {name}"
    for name in REMOVED:
        assert not (deployment / name).exists()
    assert (deployment / "clients/latin1.sh").read_bytes() == earlier.LATIN_1.replace(b"/new", b"")
    touched = {*EXPECTED_SCRIPTS, *REMOVED, "clients/latin1.sh"}
    for name in before.keys() - touched:
        assert after[name] == before[name]
    assert {*(name for name in after.keys() - before.keys() if not name.startswith(BACKUP))} == {
        "instance_configs.json",
        "instance_states.json",
    }

    assert run(deployment) == 0
    assert earlier.snapshot(deployment) == after, "twice is the same as once"

    assert run(deployment, "--restore") == 0
    assert earlier.snapshot(deployment) == before
    assert run(deployment, "--restore") == 1
    output = "".join(capsys.readouterr())
    for key in (earlier.KEY_EAST, earlier.KEY_WEST, earlier.ADMIN_KEY, earlier.BAD["api_key"]):
        assert key not in output


@pytest.mark.parametrize("shape", ["keyed", "listed"])
def test_the_data_is_separated_and_what_has_no_place_is_said_and_kept(
    tmp_path: Path, shape: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = earlier.build(tmp_path / "deployment", DATA[shape])
    assert run(deployment) == 0
    configs = ConfigStore(deployment / "instance_configs.json").load()
    states, warning = StateStore(deployment / "instance_states.json").load()
    assert warning is None
    assert list(configs) == list(states) == ["east", "west"]
    for name, value in configs["east"].model_dump(mode="json").items():
        assert value == earlier.EAST[name]
    assert (states["east"].total_requests, states["east"].last_used) == (120, 1716000000.5)
    assert (states["west"].status, states["west"].error_count) == ("rate_limited", 7)
    for path in ("instance_configs.json", "instance_states.json"):
        assert (deployment / path).stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().out
    assert "bad was skipped: api_base" in said
    assert "east has fields without a meaning here: region" in said
    assert "eastus" in text(deployment / BACKUP / "1" / "unknown_fields.json")


def test_the_backup_comes_first_is_private_and_stays_out_of_version_control(keyed: Path) -> None:
    before = earlier.snapshot(keyed)
    assert run(keyed) == 0
    copies = keyed / BACKUP / "1" / "files"
    for name in (*EXPECTED_SCRIPTS, *REMOVED, "instance_data.json"):
        assert (copies / name).read_bytes() == before[name][0]
    for path in (keyed / BACKUP).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or not path.is_file()
    assert (keyed / BACKUP).stat().st_mode & 0o777 == 0o700
    assert text(keyed / BACKUP / ".gitignore") == "*\n"


def test_a_dry_run_shows_a_diff_without_keys_and_changes_nothing(
    deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(deployment)
    assert run(deployment, "--dry-run") == 0
    assert earlier.snapshot(deployment) == before
    said = capsys.readouterr().out.splitlines()
    assert "-USE_NEW_IMPLEMENTATION=true" in said
    assert "+INSTANCE_CONFIG_FILE=instance_configs.json" in said
    assert '+curl "http://localhost:8000/admin/instances/$NAME/state"' in said
    assert '+    "api_key": "****",' in said
    assert any(line.startswith("would remove app/instance/factory.py") for line in said)
    assert not any(key in line for line in said for key in (earlier.KEY_EAST, earlier.ADMIN_KEY))


def test_it_works_in_the_current_folder_as_the_guide_says(tmp_path: Path) -> None:
    deployment = earlier.build(tmp_path / "deployment", DATA["keyed"])
    before = earlier.snapshot(deployment)
    for arguments in ([], ["--restore"]):
        ended = subprocess.run(
            [sys.executable, SCRIPT, *arguments],
            cwd=deployment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
    assert earlier.snapshot(deployment) == before


# -- what was there already --------------------------------------------------------------------


def test_instances_that_exist_are_left_alone(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = '{"east": {"api_key": "${NOT_SET_HERE}", "api_base": "https://a.example", "odd": 1}}'
    (keyed / "instance_configs.json").write_text(config)
    before = earlier.snapshot(keyed)
    assert run(keyed) == 0
    os.environ["NOT_SET_HERE"] = "x"
    configs = ConfigStore(keyed / "instance_configs.json").load()
    assert list(configs) == ["east", "west"]
    assert (configs["east"].api_base, configs["east"].priority) == ("https://a.example", 100)
    assert (configs["east"].model_extra or {})["odd"] == 1
    assert "east was skipped: " in capsys.readouterr().out
    assert run(keyed, "--restore") == 0
    assert earlier.snapshot(keyed) == before


def test_the_variables_of_the_deployment_say_where_things_are(tmp_path: Path) -> None:
    deployment = earlier.build(tmp_path / "deployment", {"old/all.json": earlier.KEYED})
    (deployment / "new").mkdir()
    (deployment / ".env").write_text(
        "export INSTANCE_DATA_FILE='old/all.json' # combined\n"
        "INSTANCE_CONFIG_FILE=new/c.json\nINSTANCE_STATE_FILE=new/s.json\nUSE_NEW_IMPLEMENTATION=1"
    )
    before = earlier.snapshot(deployment)
    assert run(deployment) == 0
    assert list(ConfigStore(deployment / "new/c.json").load()) == ["east", "west"]
    assert list(StateStore(deployment / "new/s.json").load()[0]) == ["east", "west"]
    assert not (deployment / "instance_configs.json").exists()
    assert "USE_NEW" not in text(deployment / ".env")
    assert run(deployment, "--restore") == 0
    assert earlier.snapshot(deployment) == before


def test_keys_may_refer_to_the_variables_of_the_deployment(tmp_path: Path) -> None:
    data = earlier.KEYED.replace(earlier.KEY_EAST, "${EAST_KEY}")
    deployment = earlier.build(tmp_path / "deployment", {"instance_data.json": data})
    with (deployment / ".env").open("a") as env:
        env.write("EAST_KEY=from-the-env-file-0123456789\n")
    assert run(deployment) == 0
    configs = ConfigStore(deployment / "instance_configs.json").load()
    assert configs["east"].api_key == "${EAST_KEY}"


def test_a_folder_of_client_scripts_gets_nothing_but_new_addresses(tmp_path: Path) -> None:
    (tmp_path / "ask.sh").write_text("curl http://localhost:8000/admin/instances/new\n")
    assert run(tmp_path) == 0
    assert text(tmp_path / "ask.sh") == "curl http://localhost:8000/admin/instances\n"
    assert {path.name for path in tmp_path.iterdir()} == {"ask.sh", BACKUP}


def test_the_sources_of_this_project_are_left_alone(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    (checkout / "docs").mkdir()
    (checkout / "docs" / "addresses.md").write_text("`/admin/instances/new` was an address\n")
    (checkout / "mine.sh").write_text("curl http://localhost:8000/admin/instances/new\n")
    before = earlier.snapshot(checkout)
    subprocess.run(
        [sys.executable, "-B", checkout / "scripts" / SCRIPT.name],
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    after = without_backup(checkout)
    assert {name for name in after if after[name] != before.get(name)} == {"mine.sh"}


# -- when something is in the way --------------------------------------------------------------


def test_a_write_protected_file_is_reported_and_the_rest_is_done(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(keyed)
    (keyed / "clients/client.py").chmod(0o444)
    assert run(keyed) == 1
    assert "FAILED    clients/client.py: is write-protected" in capsys.readouterr().out
    assert text(keyed / "clients/client.py") == earlier.SCRIPTS["clients/client.py"]
    assert text(keyed / "clients/app.js") == EXPECTED_SCRIPTS["clients/app.js"]
    assert (keyed / "instance_configs.json").exists()
    once = earlier.snapshot(keyed)
    assert run(keyed) == 1
    assert earlier.snapshot(keyed) == once

    (keyed / "clients/client.py").chmod(0o644)
    assert run(keyed) == 0
    assert text(keyed / "clients/client.py") == EXPECTED_SCRIPTS["clients/client.py"]
    assert run(keyed, "--restore") == 0
    assert earlier.snapshot(keyed) == before


def drop_power_over_permissions() -> None:
    """Root without the capabilities to read and write what permissions forbid, from exec on."""
    cap_dac_override, cap_dac_read_search, pr_capbset_drop = 1, 2, 24
    libc = ctypes.CDLL(None)
    for capability in (cap_dac_override, cap_dac_read_search):
        if libc.prctl(pr_capbset_drop, capability, 0, 0, 0):
            os._exit(77)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="capabilities are Linux's")
def test_files_that_permissions_forbid_are_reported_and_the_rest_is_done(keyed: Path) -> None:
    before = earlier.snapshot(keyed)
    (keyed / "clients/client.py").chmod(0o000)
    (keyed / "docs").chmod(0o555)
    ended = subprocess.run(
        [sys.executable, SCRIPT],
        cwd=keyed,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=drop_power_over_permissions if os.geteuid() == 0 else None,
    )
    if ended.returncode == 77:
        pytest.skip("capabilities can't be dropped here")
    (keyed / "clients/client.py").chmod(0o644)
    (keyed / "docs").chmod(0o755)
    assert ended.returncode == 1
    assert "FAILED    clients/client.py: Permission denied" in ended.stdout
    assert "FAILED    docs/runbook.md: Permission denied" in ended.stdout
    assert text(keyed / "docs/runbook.md") == earlier.SCRIPTS["docs/runbook.md"]
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]
    assert run(keyed, "--restore") == 0
    assert earlier.snapshot(keyed) == before


def test_data_that_can_not_be_read_is_reported_and_the_rest_is_done(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (keyed / "broken.json").write_text('{"east": ')
    (keyed / "text.json").write_text('"east"')
    (keyed / "folder.json").mkdir()
    named = ["broken.json", "text.json", "folder.json", "missing.json", "instance_data.json"]
    assert run(keyed, *(f"--data-file={name}" for name in named)) == 1
    said = capsys.readouterr().out
    for name, reason in [
        ("broken.json", "line 1"),
        ("text.json", "must be an object"),
        ("folder.json", "Is a directory"),
        ("missing.json", "does not exist"),
    ]:
        assert any(
            line.startswith(f"FAILED    {name}: ") and reason in line for line in said.splitlines()
        )
    assert list(ConfigStore(keyed / "instance_configs.json").load()) == ["east", "west"]
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]


@pytest.mark.parametrize("name", ["instance_configs.json", "instance_states.json"])
def test_a_broken_file_of_instances_is_not_written_over(
    keyed: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (keyed / name).write_text('{\n"east": ')
    assert run(keyed) == 1
    assert text(keyed / name) == '{\n"east": '
    assert f"FAILED    {name}: line 2" in capsys.readouterr().out
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]


def test_the_files_of_a_running_service_are_left_to_it(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(keyed)
    files = keyed / "instance_configs.json", keyed / "instance_states.json"
    with open_stores(*files):
        assert run(keyed) == 1
    assert "FAILED    instance_configs.json: a service runs on it" in capsys.readouterr().out
    assert not files[0].exists()
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]
    assert run(keyed) == 0
    with open_stores(*files):
        assert run(keyed, "--restore") == 1
    assert run(keyed, "--restore") == 0
    for file in files:
        Path(f"{file}.lock").unlink()
    assert earlier.snapshot(keyed) == before


def test_what_was_changed_while_it_ran_is_left_alone(
    keyed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(keyed)
    edited = ["clients/client.py", "app/instance/factory.py", "instance_configs.json"]
    keep = Safekeeping.keep

    def interrupted(keeping: Safekeeping, plan: Plan) -> Path:
        for path in edited:
            (keyed / path).write_text("{}")
        return keep(keeping, plan)

    with monkeypatch.context() as patch:
        patch.setattr(Safekeeping, "keep", interrupted)
        assert run(keyed) == 1
    said = capsys.readouterr().out
    for path in edited:
        assert text(keyed / path) == "{}"
        assert f"FAILED    {path}: was changed meanwhile; run this again\n" in said
    assert text(keyed / ".env") == EXPECTED_SCRIPTS[".env"]
    assert run(keyed, "--restore") == 0
    after = without_backup(keyed)
    assert {path for path in after if after[path] != before.get(path)} == set(edited)


def test_what_was_changed_since_is_kept_when_it_is_undone(
    keyed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = earlier.snapshot(keyed)
    assert run(keyed) == 0
    (keyed / "clients/client.py").write_text("edited\n")
    (keyed / "instance_configs.json").write_text("{}")
    assert run(keyed, "--restore") == 0
    assert without_backup(keyed) == before
    kept = [path for path in (keyed / BACKUP).rglob("*") if path.is_file()]
    assert {path.name: text(path) for path in kept} == {
        ".gitignore": "*\n",
        "client.py": "edited\n",
        "instance_configs.json": "{}",
    }
    assert "what it said is kept as " in capsys.readouterr().out


def test_a_file_edited_between_two_runs_goes_back_to_where_it_was(keyed: Path) -> None:
    before = earlier.snapshot(keyed)
    assert run(keyed) == 0
    (keyed / "clients/client.py").write_text("edited: /admin/instances/new\n")
    assert run(keyed) == 0
    assert text(keyed / "clients/client.py") == "edited: /admin/instances\n"
    assert run(keyed, "--restore") == 0
    assert without_backup(keyed) == before
    (kept,) = (keyed / BACKUP).rglob("client.py")
    assert text(kept) == "edited: /admin/instances/new\n"


def test_a_damaged_backup_is_not_restored(keyed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(keyed) == 0
    after = without_backup(keyed)
    copy = keyed / BACKUP / "1" / "files" / "app" / "main.py"
    copy.write_text("something else\n")
    assert run(keyed, "--restore") == 1
    assert "is not what was backed up" in capsys.readouterr().err
    assert without_backup(keyed) == after


def test_a_link_is_not_followed_and_said(keyed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = keyed.parent / "outside.env"
    (keyed / ".env").rename(outside)
    (keyed / ".env").symlink_to(outside)
    assert run(keyed) == 1
    assert text(outside) == earlier.SCRIPTS[".env"]
    assert "FAILED    .env: is a symbolic link" in capsys.readouterr().out


# -- under any Python --------------------------------------------------------------------------


def bare(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a copy of the scripts with a Python that has nothing but the standard library."""
    if not checkout.exists():
        for folder in ("scripts", "actors", "proxy"):
            shutil.copytree(ROOT / folder, checkout / folder)
    return subprocess.run(
        [sys.executable, "-S", checkout / "scripts" / SCRIPT.name, *words],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_environment_all_but_the_data_is_done(tmp_path: Path, keyed: Path) -> None:
    ended = bare(tmp_path / "checkout", "--root", str(keyed))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "FAILED    instance_data.json: not converted" in ended.stdout
    assert "scripts/run --version makes it" in ended.stdout
    assert text(keyed / "app/main.py") == EXPECTED_SCRIPTS["app/main.py"]
    assert not (keyed / "instance_configs.json").exists()


def test_the_environment_is_used_if_it_was_made(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    assert bare(checkout, "--help").returncode == 0
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    ended = bare(checkout, "--root", "a folder")
    assert ended.stdout.splitlines()[-2:] == ["--root", "a folder"]


# -- the rules, one by one ---------------------------------------------------------------------


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
