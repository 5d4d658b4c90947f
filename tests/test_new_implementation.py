"""The promises of the documented interface; and, started as a script, everything there is to test.

    python tests/test_new_implementation.py                 the whole suite; arguments go to pytest
    python tests/test_new_implementation.py --url http://127.0.0.1:3010 --admin-key KEY
                                                            checks a running service instead

Either ends with a line that begins with PASSED or FAILED, and with exit status 0 or 1. As a script
it may be started by any Python: it goes on with that of `.venv`, so what the tests need is
imported in them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ENDPOINTS = {
    "/admin/instances": {"get", "post"},
    "/admin/instances/{name}": {"delete"},
    "/admin/instances/{name}/config": {"get", "put"},
    "/admin/instances/{name}/state": {"get", "put"},
    "/admin/instances/migrate": {"post"},
    "/admin/instances/new": {"get", "post"},
    "/admin/instances/new/{name}/config": {"get", "put"},
    "/admin/instances/new/{name}/state": {"get", "put"},
}


def test_the_documented_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    from documented_records import CONFIG, STATE

    from actors.store import ConfigStore, StateStore

    configs, states = tmp_path / "instance_configs.json", tmp_path / "instance_states.json"
    configs.write_text(json.dumps({"instance-name": CONFIG}))
    states.write_text(json.dumps({"instance-name": STATE}))
    (config,) = ConfigStore(configs).load().values()
    (state,), warning = StateStore(states).load()[0].values(), StateStore(states).load()[1]
    assert config.model_dump(mode="json") == CONFIG
    assert state.model_dump(mode="json") == STATE
    assert warning is None


def test_configuration_and_state_have_nothing_in_common_but_the_name() -> None:
    from documented_records import CONFIG, STATE

    from actors.models import InstanceConfig, InstanceState

    assert set(InstanceConfig.model_fields) == set(CONFIG)
    assert set(InstanceState.model_fields) == set(STATE)
    assert set(CONFIG) & set(STATE) == {"name"}


def test_every_documented_endpoint_is_there() -> None:
    from proxy.front.openapi import document

    paths = document()["paths"]
    for path, methods in ENDPOINTS.items():
        assert methods <= set(paths[path])


# -- as a script -------------------------------------------------------------------------------


def main(words: list[str]) -> int:
    """Runs the suite or checks a service; returns the exit status."""
    options, others = _parser().parse_known_args(words)
    if options.url and others:
        _parser().error(f"unrecognized arguments: {' '.join(others)}")
    needed = ("httpx", "trio") if options.url else ("pytest", "pytest_trio", "hypothesis", "trio")
    sys.path.insert(0, str(ROOT / "scripts"))
    import project_environment

    if not project_environment.enter(*needed):
        print(f"FAILED: the environment for tests is missing; {ROOT}/scripts/test makes it.")
        return 1
    return _check(options) if options.url else _run_suite(others)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="test_new_implementation.py",
        description="Runs the whole test suite, or checks a running service.",
        epilog="Other arguments go to pytest. Exit status: 0 passed, 1 failed, 2 wrong usage, "
        "130 interrupted. A check of a service touches only instances of its own and deletes them.",
    )
    parser.add_argument("--url", metavar="URL", help="of a running service, to be checked")
    parser.add_argument(
        "--admin-key",
        metavar="KEY",
        default=os.environ.get("ADMIN_API_KEY", ""),
        help="its admin key; better given as ADMIN_API_KEY",
    )
    parser.add_argument(
        "--client-key",
        metavar="KEY",
        default=os.environ.get("PROXY_API_KEYS", "").split(",")[0].strip(),
        help="one of its client keys, if it has any; better given as PROXY_API_KEYS",
    )
    return parser


def _check(options: argparse.Namespace) -> int:
    if not options.admin_key:
        print("FAILED: the admin key is missing: give --admin-key or set ADMIN_API_KEY.")
        return 1
    import service_check

    try:
        return service_check.check(options.url, options.admin_key, options.client_key)
    except KeyboardInterrupt:
        print("FAILED: interrupted; what was made for the checks was deleted.")
        return 130


def _run_suite(words: list[str]) -> int:
    began = time.perf_counter()
    sys.stdout.flush()
    try:
        status = subprocess.run(
            [sys.executable, "-m", "pytest", *words], cwd=ROOT, check=False
        ).returncode
    except KeyboardInterrupt:
        print("FAILED: interrupted.")
        return 130
    took = f"in {time.perf_counter() - began:.0f} s"
    if status:
        reason = {2: "it was interrupted", 4: "wrong usage", 5: "there was no test to run"}
        print(f"FAILED: {reason.get(status, 'the lines above say what')}, {took}.")
        return 1
    print(f"PASSED: every test that was run, {took}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
