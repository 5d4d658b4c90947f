"""`python -m proxy simulate`: simulated resources on ports of this machine."""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from proxy.simulator.demo import DEMO_MODELS, simulated_resource
from proxy.simulator.deployment import Latency
from proxy.simulator.resource import DEFAULT_KEY, Resource
from proxy.simulator.serving import serve_resource

if TYPE_CHECKING:
    import argparse

_MOST_RESOURCES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to its parser."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--port", type=int, default=8081, help="port of the first resource, the others follow it"
    )
    parser.add_argument("--resources", type=int, default=1, help="how many resources")
    parser.add_argument(
        "--tpm", type=int, default=60_000, help="tokens per minute of each deployment"
    )
    parser.add_argument(
        "--rpm", type=int, help="requests per minute (default: 6 per 1000 TPM; 0: no limit)"
    )
    parser.add_argument(
        "--models",
        default=",".join(DEMO_MODELS),
        help="models, separated by commas; each gets a deployment of its name",
    )
    parser.add_argument("--api-key", default=DEFAULT_KEY, help="the key that clients have to send")
    parser.add_argument(
        "--control-key", help="key for /simulator/ (default: loopback clients need none)"
    )
    parser.add_argument("--first-token-ms", type=float, default=300, help="time to the first token")
    parser.add_argument("--per-token-ms", type=float, default=20, help="time per further token")
    parser.add_argument("--seed", type=int, default=0, help="makes runs repeatable")


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM, then returns 0; 1, after a sentence, if it can't serve."""
    problem = _problem(args)
    if problem is None:
        problem = trio.run(_serve_all, args)
    if problem is not None:
        print(f"simulate: {problem}", file=sys.stderr)
        return 1
    return 0


def _problem(args: argparse.Namespace) -> str | None:
    """What is wrong with the options, as one sentence."""
    if not 1 <= args.resources <= _MOST_RESOURCES:
        return f"--resources must be between 1 and {_MOST_RESOURCES}."
    if not 0 <= args.port <= 65_535 or args.port + args.resources - 1 > 65_535:
        return "--port must be between 0 and 65535, with room for all resources."
    if args.tpm < 1 or (args.rpm is not None and args.rpm < 0):
        return "--tpm must be at least 1 and --rpm at least 0."
    if args.first_token_ms < 0 or args.per_token_ms < 0:
        return "--first-token-ms and --per-token-ms must not be negative."
    if not _models(args):
        return "--models must name at least one model."
    return None


def _models(args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(filter(None, (model.strip() for model in args.models.split(","))))


def _resources(args: argparse.Namespace) -> list[Resource]:
    latency = Latency(
        first_token_s=args.first_token_ms / 1000,
        per_token_s=args.per_token_ms / 1000,
        jitter_s=args.per_token_ms / 4000,
    )
    return [
        simulated_resource(
            f"simulated-{number}",
            _models(args),
            tpm=args.tpm,
            rpm=args.rpm,
            latency=latency,
            api_key=args.api_key,
            seed=args.seed,
        )
        for number in range(1, args.resources + 1)
    ]


async def _serve_all(args: argparse.Namespace) -> str | None:
    """Returns after a signal; with a sentence when a port can't be had."""
    problem = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            problem = await _start_all(args, nursery)
            if problem is None:
                print("Ctrl-C ends it.", flush=True)
                await anext(signals)
            nursery.cancel_scope.cancel()
    return problem


async def _start_all(args: argparse.Namespace, nursery: trio.Nursery) -> str | None:
    serve = partial(serve_resource, control_key=args.control_key)
    for index, resource in enumerate(_resources(args)):
        port = args.port + index if args.port else 0
        try:
            url = await nursery.start(serve, resource, args.host, port)
        except OSError as error:
            return f"can't listen on {args.host}:{port}: {error.strerror}."
        _announce(resource, url)
    return None


def _announce(resource: Resource, url: str) -> None:
    print(f"{resource.name} ({resource.region}) at {url}")
    for deployment in resource.deployments.values():
        limits = deployment.limits
        requests = limits.requests_per_min or "no limit on"
        print(f"  {deployment.name}: {limits.tpm} tokens and {requests} requests per minute")
