"""The command line: what each command does, and how it says that it could not."""

import errno
import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import proxy
from actors.errors import BrokenFile, FileLocked
from proxy.cli import main
from proxy.log import LogWriter
from proxy.settings import SettingsError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_an_empty_folder_with_a_plain_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    for variable in ("INSTANCE_CONFIG_FILE", "HOST", "PORT", "ADMIN_API_KEY", "LOG_DIR"):
        os.environ.pop(variable, None)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def service(monkeypatch):
    """Stands in for the service: `run` notes the settings, and then does what a test wants."""
    stub = SimpleNamespace(settings=None, then=lambda: 0)

    def run(settings):
        stub.settings = settings
        return stub.then()

    stub.run = run
    monkeypatch.setattr(proxy, "service", stub, raising=False)
    return stub


def write_config(path, **records):
    plain = {"api_key": "the-secret-key", "api_base": "https://a.example"}
    path.write_text(json.dumps({name: {**plain, **fields} for name, fields in records.items()}))


# -- serve -------------------------------------------------------------------------------------


def test_without_a_command_it_serves_with_the_settings_of_environment_and_file(service, capsys):
    Path(".env").write_text("PORT=1234\nADMIN_API_KEY=the-admin-key\nKEY_OF_A=value\n")
    os.environ["HOST"] = "::1"
    service.then = lambda: 7

    assert main([]) == 7

    assert (service.settings.host, service.settings.port) == ("::1", 1234)
    assert os.environ["KEY_OF_A"] == "value"
    assert capsys.readouterr() == ("", "")


def test_another_file_can_be_named_and_has_to_exist(service, capsys):
    Path("other.env").write_text("PORT=4321\n")
    assert main(["--env-file", "other.env"]) == 0
    assert service.settings.port == 4321

    assert main(["--env-file", "missing.env"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "missing.env: No such file or directory"


def test_a_generated_admin_key_is_printed_once_and_masked_in_the_log(service, capsys):
    def log_the_key():
        key = service.settings.admin_api_key.get_secret_value()
        logging.getLogger("proxy").info("key %s", key)
        return 0

    service.then = log_the_key
    assert main([]) == 0
    key = service.settings.admin_api_key.get_secret_value()
    printed = capsys.readouterr().err
    assert printed.count(key) == 1
    assert f"ADMIN_API_KEY is not set; for this run it is {key}\n" in printed
    assert 'message="key ****"' in printed


def test_what_is_logged_while_serving_is_written_when_it_ends(service, capsys):
    os.environ.update(LOG_DIR="logs", LOG_FORMAT="json", ADMIN_API_KEY="the-admin-key")

    def fail():
        logging.getLogger("proxy").warning("about to fail")
        raise FileLocked("states.json")

    service.then = fail
    assert main([]) == 1
    logged = json.loads(Path("logs/proxy.log").read_text())
    assert logged["message"] == "about to fail"
    assert not [h for h in logging.getLogger().handlers if isinstance(h, LogWriter)]
    assert "states.json is in use by another proxy process\n" in capsys.readouterr().err


LOCKED = FileLocked("states.json")


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (BrokenFile("c.json", "a.weight", "is wrong"), "c.json: a.weight: is wrong"),
        (LOCKED, "states.json is in use by another proxy process"),
        (SettingsError(["PORT is wrong", "HOST is wrong"]), "PORT is wrong\nHOST is wrong"),
        (ExceptionGroup("nursery", [ExceptionGroup("inner", [LOCKED])]), str(LOCKED)),
        (PermissionError(errno.EACCES, "Permission denied", "c.json"), "c.json: Permission denied"),
        (
            OSError(errno.EADDRINUSE, "Address already in use"),
            "cannot listen: Address already in use; check HOST and PORT",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "cannot listen: Permission denied; check HOST and PORT",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "cannot listen: Name or service not known; check HOST and PORT",
        ),
        (
            ModuleNotFoundError("No module named 'trio'", name="trio"),
            f"trio is not installed for {sys.executable}; start with ./scripts/run",
        ),
    ],
)
def test_a_failure_to_start_is_one_sentence_and_status_1(service, capsys, failure, sentence):
    def fail():
        raise failure

    os.environ["ADMIN_API_KEY"] = "the-admin-key"
    service.then = fail
    assert main([]) == 1
    assert capsys.readouterr() == ("", f"{sentence}\n")


@pytest.mark.parametrize(
    "defect",
    [
        RuntimeError("ours"),
        ModuleNotFoundError("No module named 'proxy.gone'", name="proxy.gone"),
        OSError(errno.EMFILE, "Too many"),
        ExceptionGroup("g", [LOCKED, KeyError()]),
    ],
)
def test_a_defect_is_not_made_into_a_sentence(service, defect):
    def fail():
        raise defect

    service.then = fail
    with pytest.raises(type(defect)):
        main([])


def test_an_interrupt_ends_quietly(service, capsys):
    def interrupt():
        raise KeyboardInterrupt

    os.environ["ADMIN_API_KEY"] = "the-admin-key"
    service.then = interrupt
    assert main([]) == 130
    assert capsys.readouterr() == ("", "")


def test_settings_that_are_wrong_stop_the_start(service, capsys):
    os.environ.update(PORT="x", LOG_FORMAT="y")
    assert main([]) == 1
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == [
        *("PORT", "LOG_FORMAT")
    ]
    assert service.settings is None


# -- check -------------------------------------------------------------------------------------


def test_check_lists_the_instances_and_no_keys(capsys):
    write_config(
        Path("c.json"),
        east={"supported_models": ["gpt-4o", "o3"], "priority": 1},
        west={"model_deployments": {"gpt-4o": "d"}, "enabled": False},
        other={"provider_type": "generic"},
        idle={},
    )
    assert main(["check", "--config", "c.json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "NAME   PROVIDER  PRIORITY  MAX_TPM  MODELS",
        "east   azure     1         240000   gpt-4o, o3",
        "west   azure     100       240000   gpt-4o  (disabled)",
        "other  generic   100       240000   any",
        "idle   azure     100       240000   none: name them in supported_models or "
        "model_deployments",
        "c.json is valid: 4 instances.",
    ]


def test_check_tells_every_problem_with_its_place(capsys):
    write_config(Path("c.json"), a={"weight": -1, "enabled": "no"}, b={"api_key": "${NOT_SET}"})
    assert main(["check", "--config", "c.json"]) == 1
    *problems, verdict = capsys.readouterr().out.splitlines()
    assert [problem.rsplit(": ", 1)[0] for problem in problems] == [
        "c.json: a.weight",
        "c.json: a.enabled",
        "c.json: b.api_key",
    ]
    assert verdict == "c.json has 3 problems; the service would not start."


def test_check_tells_of_proxies_that_can_not_be_used(capsys):
    os.environ["HTTPS_PROXY"] = "socks5://user:secret@proxy.example"
    write_config(Path("c.json"), a={"proxy_url": "socks5://user:secret@proxy.example"})
    assert main(["check", "--config", "c.json"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("c.json: a.proxy_url: must be the address of an HTTP proxy, ")
    assert err.startswith("HTTPS_PROXY can't be used as an HTTP proxy: ")
    assert "secret" not in out + err


def test_check_takes_the_file_and_the_references_from_the_settings(capsys):
    Path(".env").write_text("INSTANCE_CONFIG_FILE=mine.json\nKEY_IN_FILE=abc\n")
    write_config(Path("mine.json"), a={"api_key": "${KEY_IN_FILE}"})
    assert main(["check"]) == 0
    assert "mine.json is valid: 1 instance." in capsys.readouterr().out


def test_check_of_no_file_depends_on_whether_it_was_named(capsys):
    assert main(["check"]) == 0
    assert "instance_configs.json does not exist" in capsys.readouterr().out
    assert main(["check", "--config", "missing.json"]) == 1
    assert capsys.readouterr().err == "missing.json: No such file or directory\n"


def test_check_finds_a_vocabulary_that_an_installation_has_spoilt(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("proxy.tokens.vocabulary.resources.files", lambda _package: tmp_path)
    assert main(["check"]) == 1
    assert capsys.readouterr().err.startswith(f"cannot read the vocabulary {tmp_path}")


# -- the others --------------------------------------------------------------------------------


def test_check_of_a_missing_folder_says_what_the_start_would_say(capsys):
    os.environ["INSTANCE_CONFIG_FILE"] = "nowhere/configs.json"
    assert main(["check"]) == 1
    assert capsys.readouterr() == ("", f"{Path('nowhere').resolve()}: No such file or directory\n")


def test_demo_is_run_with_its_options(monkeypatch):
    monkeypatch.setattr(
        proxy, "demo", SimpleNamespace(run=lambda options: options.command == "demo"), raising=False
    )
    assert main(["demo"]) == 1


def test_simulate_defines_its_own_options(monkeypatch):
    import proxy.simulator

    command = SimpleNamespace(
        add_arguments=lambda parser: parser.add_argument("--tpm", type=int),
        run=lambda options: options.tpm,
    )
    monkeypatch.setattr(proxy.simulator, "command", command, raising=False)
    assert main(["simulate", "--tpm", "42"]) == 42


@pytest.mark.parametrize("arguments", [["serv"], ["--tpm"], ["check", "x"], ["simulate-x"]])
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: azure-openai-proxy" in capsys.readouterr().err


def run_module(*arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "proxy", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_module_runs_and_help_and_check_load_no_web_framework():
    version = run_module("--version")
    assert (version.returncode, version.stdout) == (0, f"azure-openai-proxy {proxy.__version__}\n")
    helped = run_module("--help")
    assert helped.returncode == 0
    assert all(command in helped.stdout for command in ("demo", "check", "simulate"))
    write_config(Path("c.json"), a={"weight": -1})
    checked = run_module("check", "--config", "c.json")
    assert checked.returncode == 1
    assert "a.weight" in checked.stdout
    for ended in (version, helped, checked):
        loaded = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.splitlines()}
        assert loaded.isdisjoint({"quart", "hypercorn", "httpx", "tiktoken", "proxy.server"})
    assert "pydantic" not in {
        line.rsplit("|", 1)[-1].strip() for line in helped.stderr.splitlines()
    }
