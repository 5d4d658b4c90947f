"""`python -m proxy demo`: simulated Azure OpenAI resources and the proxy in front of them.

Needs no key, no file of the user's and no network; what it writes is in a temporary folder that
goes away with it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from proxy import log, service
from proxy.settings import load_settings
from proxy.simulator.demo import demo_resources
from proxy.simulator.resource import DEFAULT_KEY
from proxy.simulator.serving import serve_resource

if TYPE_CHECKING:
    import argparse

    from proxy.settings import Settings
    from proxy.simulator.resource import Resource


HOST: Final = "127.0.0.1"
DEMO_MODEL: Final = "gpt-4o"


def run(options: argparse.Namespace) -> int:
    """Serves until interrupted; returns the exit status. Errors: as `proxy.service.run`."""
    with tempfile.TemporaryDirectory(prefix="azure-openai-proxy-demo-") as folder:
        config_file = Path(folder, "instance_configs.json")
        settings = load_settings(
            {
                **os.environ,
                "HOST": HOST,
                "INSTANCE_CONFIG_FILE": str(config_file),
                "INSTANCE_STATE_FILE": str(Path(folder, "instance_states.json")),
                "LOG_LEVEL": os.environ.get("LOG_LEVEL") or "WARNING",
            }
        )
        with closing(log.configure(settings.log_level, settings.log_format, settings.log_dir)):
            trio.run(_main, settings, config_file)
    print("\nThe demo has ended.")
    return 0


async def _main(settings: Settings, config_file: Path) -> None:
    resources = demo_resources()
    async with trio.open_nursery() as nursery:
        urls = [await nursery.start(serve_resource, resource, HOST, 0) for resource in resources]
        configs = [_config(resource, url) for resource, url in zip(resources, urls, strict=True)]
        content = json.dumps({config["name"]: config for config in configs})
        await trio.Path(config_file).write_text(content, encoding="utf-8")
        await service.serve_with_stores(settings, on_ready=partial(_introduce, settings, configs))
        nursery.cancel_scope.cancel()


def _config(resource: Resource, url: str) -> dict[str, Any]:
    deployments = resource.deployments.values()
    return {
        "name": resource.name,
        "api_key": DEFAULT_KEY,
        "api_base": url,
        "max_tpm": max(deployment.limits.tpm for deployment in deployments),
        "supported_models": [deployment.model for deployment in deployments],
    }


def _introduce(settings: Settings, configs: list[dict[str, Any]], urls: list[str]) -> None:
    """Says what is running and how to try it."""
    url = urls[0]
    key = settings.proxy_api_keys[0].get_secret_value() if settings.proxy_api_keys else "none"
    for config in configs:
        print(f"simulated resource {config['name']:<14} {config['max_tpm']:>7} tokens/minute")
    print(
        f"""
The proxy serves them at {url} as one. Admin key: {settings.admin_api_key.get_secret_value()}

A request, with curl:

curl -s {url}/v1/chat/completions -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model":"{DEMO_MODEL}","messages":[{{"role":"user","content":"Hello!"}}]}}'

The same, streamed, with the official Python package ({sys.executable} has it):

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
messages = [{{"role": "user", "content": "Hello!"}}]
for chunk in client.chat.completions.create(model="{DEMO_MODEL}", messages=messages, stream=True):
    print(*(choice.delta.content or "" for choice in chunk.choices), end="", flush=True)

What the instances have done so far:

curl -s {url}/admin/instances -H "X-Admin-API-Key: {settings.admin_api_key.get_secret_value()}"

Ctrl-C ends everything.""",
        flush=True,
    )
