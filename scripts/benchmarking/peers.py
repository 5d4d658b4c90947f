"""The systems that are measured: how each is configured and started, in one table."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import leftovers
from .wire import COUNTED_MODEL, CROWDED_MODEL, MODEL

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPTS = Path(__file__).resolve().parent.parent
REPOSITORY = SCRIPTS.parent

_CLIENT_KEY = "bench-client-key"
_LITELLM_KEY = "sk-bench-client-key"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a peer is to have; all but the number of instances is for the service.

    `also`: a model beside the usual one, with an instance of its own. `aged`: starts with what an
    hour of traffic leaves in its files. `saved`: False writes neither state nor journal.
    """

    instances: int = 10
    also: str | None = None
    aged: bool = False
    saved: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """Where a peer runs: an empty folder of its own, its port, the upstream's port."""

    folder: Path
    port: int
    upstream_port: int
    setting: Setting


@dataclass(frozen=True, slots=True)
class Command:
    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` writes what the peer needs into the site's folder and says how to start it; None:
    there is no process, the load goes to the upstream itself. `from_here`: it is this repository's
    service, which can also be had without its files."""

    name: str
    title: str
    command: Callable[[Site], Command] | None
    authorization: str = f"Bearer {_CLIENT_KEY}"
    start_limit_s: float = 30.0
    from_here: bool = False


_UNSAVED = [sys.executable, "-P", "-m", "benchmarking.unsaved"]

DIRECT = Peer("direct", "direct, no peer", None)


def service(command: str | None = None) -> Peer:
    """This service with all its features on. `command`: how to start it instead of from here."""
    words = shlex.split(command) if command else [sys.executable, "-P", "-m", "proxy"]

    def prepare(site: Site) -> Command:
        config_file = site.folder / "instance_configs.json"
        state_file = site.folder / "instance_states.json"
        configs = _instances(site)
        config_file.write_text(json.dumps(configs, indent=2))
        if site.setting.aged:
            leftovers.write(state_file, configs)
        environment = {
            "HOST": "127.0.0.1",
            "PORT": str(site.port),
            "INSTANCE_CONFIG_FILE": str(config_file),
            "INSTANCE_STATE_FILE": str(state_file),
            "ADMIN_API_KEY": "bench-admin-key",
            "PROXY_API_KEYS": f"bench-other-key,{_CLIENT_KEY},bench-third-key",
            "LOG_LEVEL": "INFO",
            "LOG_FORMAT": "json",
            "LOG_DIR": str(site.folder / "logs"),
            "MAX_QUEUE_WAIT_SECONDS": "900",
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{SCRIPTS}",
        }
        return Command(words if site.setting.saved else _UNSAVED, environment)

    return Peer("service", "this service, all features", prepare, from_here=command is None)


def _instances(site: Site) -> dict[str, dict[str, object]]:
    """Equal instances with limits that are counted and never reached, and the one for another
    model that the setting wants."""
    names = [f"instance-{number:03}" for number in range(site.setting.instances)]
    equal = {name: _instance(site, name, MODEL) for name in names}
    also = site.setting.also
    return equal if also is None else equal | {also: _instance(site, also, also) | _LIMITS[also]}


_LIMITS: dict[str, dict[str, object]] = {
    CROWDED_MODEL: {"max_tpm": 10_000},
    COUNTED_MODEL: {"max_input_tokens": 400_000},
}


def _instance(site: Site, name: str, model: str) -> dict[str, object]:
    return {
        "name": name,
        "provider_type": "azure",
        "api_key": "bench-upstream-key",
        "api_base": f"http://127.0.0.1:{site.upstream_port}",
        "priority": 100,
        "weight": 100,
        "max_tpm": 100_000_000_000,
        "max_input_tokens": 1_047_576,
        "supported_models": [model],
        "model_deployments": {model: f"{model}-{name}"},
        "timeout_seconds": 60.0,
        "retry_count": 3,
    }


def _own(module: str) -> Callable[[Site], Command]:
    def prepare(site: Site) -> Command:
        ports = [str(site.port), str(site.upstream_port)]
        return Command(
            [sys.executable, "-m", f"benchmarking.{module}", *ports],
            {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{SCRIPTS}"},
        )

    return prepare


RELAY = Peer("relay", "bare trio + httptools relay", _own("relay"))
OUTLINE = Peer("outline", "relay with JSON and actors, no feature", _own("outline"))
PASSTHROUGH = Peer("passthrough", "naive Quart-Trio + httpx", _own("passthrough"))

_NGINX_CONFIG = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_max_body_size 32m;
    client_body_buffer_size 2m;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream simulated {{
        server 127.0.0.1:{upstream_port};
        keepalive 128;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://simulated;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def nginx(program: str) -> Peer:
    def prepare(site: Site) -> Command:
        config = site.folder / "nginx.conf"
        config.write_text(
            _NGINX_CONFIG.format(
                folder=site.folder, port=site.port, upstream_port=site.upstream_port
            )
        )
        return Command([program, "-p", str(site.folder), "-c", str(config), "-e", "stderr"])

    return Peer("nginx", "nginx, plain reverse proxy", prepare)


def litellm(program: Path) -> Peer:
    def prepare(site: Site) -> Command:
        config = site.folder / "litellm.yaml"  # JSON is YAML too
        deployment = {
            "model": f"openai/{MODEL}",
            "api_base": f"http://127.0.0.1:{site.upstream_port}/v1",
            "api_key": "bench-upstream-key",
        }
        config.write_text(
            json.dumps(
                {
                    "model_list": [{"model_name": MODEL, "litellm_params": deployment}]
                    * site.setting.instances,
                    "general_settings": {"master_key": _LITELLM_KEY},
                }
            )
        )
        words = [str(program), "--config", str(config), "--host", "127.0.0.1"]
        return Command(
            [*words, "--port", str(site.port), "--num_workers", "1"],
            # Production mode reads no .env; the cost map that ships with it needs no network.
            {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )

    return Peer("litellm", "LiteLLM proxy", prepare, f"Bearer {_LITELLM_KEY}", 180.0)


def install_litellm() -> Path:
    """LiteLLM's program, from an environment of its own in the user's cache folder, which is made
    at the first use. Its dependencies would not go with ours."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    environment = cache / "azure-openai-proxy" / "litellm"
    program = environment / "bin" / "litellm"
    if not program.exists():
        print(f"Installing LiteLLM into {environment} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        python = str(environment / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-qq", "litellm[proxy]"], check=True)
    return program


def available(*, service_command: str | None, with_litellm: bool) -> list[Peer]:
    """Every peer that can run here, in the order of the tables."""
    peers = [DIRECT, service(service_command), RELAY, OUTLINE, PASSTHROUGH]
    if program := shutil.which("nginx"):
        peers.append(nginx(program))
    if with_litellm:
        peers.append(litellm(install_litellm()))
    return peers
