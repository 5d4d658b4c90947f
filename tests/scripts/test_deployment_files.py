"""The container's recipe and the systemd unit keep the promises of docs/deployment.md.

Neither Docker nor a running systemd is needed: the files are read, and what they start is started.
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.supervisor import SAVE_AT_EXIT_S
from proxy.server.server import CUT_S
from proxy.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


def instructions(stage: int) -> list[tuple[str, str]]:
    """(instruction, its arguments) of one stage of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    stages: list[list[tuple[str, str]]] = []
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, " ".join(rest.split())))
    return stages[stage]


def only(name: str, stage: int = -1) -> str:
    [arguments] = [given for found, given in instructions(stage) if found == name]
    return arguments


def container_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in only("ENV").split())


def test_what_is_installed_is_pinned_for_the_build_too() -> None:
    build = dict(pair.split("=", 1) for pair in only("ENV", 0).split())
    assert build["PIP_CONSTRAINT"] == build["PIP_BUILD_CONSTRAINT"] == "/source/constraints.txt"
    copied = " ".join(given for name, given in instructions(0) if name == "COPY")
    assert "constraints.txt" in copied
    assert "pip --python /opt/proxy/bin/python install ." in only("RUN", 0)


def test_the_image_holds_the_environment_and_nothing_to_build_with() -> None:
    assert only("COPY") == "--from=build /opt/proxy /opt/proxy"
    assert "--without-pip" in only("RUN", 0)
    assert not re.search(r"apt|curl|pip", only("RUN"))


def test_the_service_is_nobody_special_and_owns_one_folder() -> None:
    user, group = only("USER").split(":")
    assert int(user) > 1000 < int(group)
    assert f"--uid {user}" in only("RUN")
    folder = only("VOLUME")
    assert f"--mode=0700 {folder}" in only("RUN")
    assert only("WORKDIR") == folder
    environ = container_environment()
    for setting in ("INSTANCE_CONFIG_FILE", "INSTANCE_STATE_FILE", "INSTANCE_DATA_FILE"):
        assert Path(environ[setting]).parent == Path(folder)


def test_the_containers_environment_is_one_of_settings() -> None:
    """Of settings that exist, and open to the network only with keys."""
    environ = container_environment()
    unknown = {name for name in environ if name.lower() not in Settings.model_fields}
    assert unknown == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    with pytest.raises(Exception, match="PROXY_API_KEYS"):
        load_settings(environ)
    settings = load_settings(environ | {"PROXY_API_KEYS": "k"})
    assert str(settings.port) == only("EXPOSE")


def test_it_is_started_stopped_and_asked_directly() -> None:
    """Without a shell in between, which would keep the signal."""
    scripts = set(_project()["scripts"])
    assert {json.loads(only("ENTRYPOINT"))[0]} <= scripts
    command = re.fullmatch(r"(?:--[a-z-]+=\S+ )+CMD (\[.+\])", only("HEALTHCHECK"))
    assert command is not None
    assert json.loads(command[1]) == ["azure-openai-proxy", "health"]
    assert only("STOPSIGNAL") == "SIGTERM"


def _project() -> Any:
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_no_file_with_keys_can_get_into_the_image() -> None:
    """The ignore file lets in what is copied, and only that."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        path for name, given in instructions(0) if name == "COPY" for path in given.split()[:-1]
    }
    assert let_in == copied
    assert all((ROOT / path).exists() for path in copied)


def test_the_compose_file_keeps_the_root_read_only() -> None:
    document = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    service = document["services"]["proxy"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    [volume] = service["volumes"]
    assert volume.split(":") == [next(iter(document["volumes"])), only("VOLUME")]
    environ = service["environment"]
    assert {name.lower() for name in environ} <= set(Settings.model_fields)
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_s > longest_stop_s(float(environ["SHUTDOWN_DELAY_SECONDS"]))


def longest_stop_s(delay_s: float) -> float:
    drain_s = Settings.model_fields["shutdown_timeout_seconds"].default
    return float(delay_s + drain_s + CUT_S + SAVE_AT_EXIT_S)


# -- systemd -----------------------------------------------------------------------------------

UNIT = EXAMPLES / "azure-openai-proxy.service"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text())
    return parser


def test_the_unit_reloads_and_stops_as_the_service_expects() -> None:
    service = unit()["Service"]
    assert service["ExecReload"].endswith("kill -HUP $MAINPID")
    assert float(service["TimeoutStopSec"]) > longest_stop_s(0)
    assert "KillSignal" not in service, "SIGTERM is the default"
    assert service["Type"] == "exec", "the service does not speak sd_notify"


def test_the_unit_lets_the_service_write_where_its_files_are_and_nowhere_else() -> None:
    service = unit()["Service"]
    assert service["User"] != "root"
    assert service["ProtectSystem"] == "strict"
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    assert (service["StateDirectoryMode"], service["UMask"]) == ("0700", "0077")
    assert service["NoNewPrivileges"] == "yes"
    assert "ReadWritePaths" not in service


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """All but the path of the program, which is not installed here."""
    text = re.sub(r"=/opt/azure-openai-proxy/bin/\S+", "=/bin/true", UNIT.read_text())
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False
    )
    ours = [line for line in verified.stderr.splitlines() if UNIT.name in line]
    assert ours == []
    assert verified.returncode == 0, verified.stderr


# -- the page ----------------------------------------------------------------------------------

PAGES = ("deployment.md", "metrics.md")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_refers_to_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_the_settings_and_commands_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    settings = set(re.findall(r"`([A-Z][A-Z_]+[A-Z])(?:=[^`]*)?`", text)) - {"SIGHUP"}
    assert settings
    assert {name for name in settings if name.lower() not in Settings.model_fields} == set()
    commands = re.findall(r"(?:-m proxy|azure-openai-proxy`? )(\w+)", text)
    known = {"check", "demo", "health", "migrate", "plan", "simulate"}
    words = {command for command in commands if command in known or "-m proxy " + command in text}
    assert words <= known
