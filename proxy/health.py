"""`python -m proxy health`: asks the service that these settings describe, on this machine.

For a container's health check: nothing but Python is needed, and a start costs a tenth of a second.
"""

from __future__ import annotations

import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

    from proxy.settings import Settings

TIMEOUT_S: Final = 3.0
"""For connecting, and for each piece of the answer."""
_EVERYWHERE: Final = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on that can't be connected to, and where such a service is found."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ready",
        action="store_true",
        help="ask whether it can serve (/readyz), not whether it lives (/healthz)",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints what is wrong, if anything is. Exit status: 0 as it should be, 1 not."""
    path = "/readyz" if options.ready else "/healthz"
    problem = ask(settings, path)
    if problem is not None:
        print(f"{path}: {problem}", file=sys.stderr)
    return 0 if problem is None else 1


def ask(settings: Settings, path: str) -> str | None:
    """What is wrong with the answer; None if it is 200. Blocks."""
    connection = _connection(settings)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        text = answer.read(1000).decode("utf-8", "replace").strip()
    except (OSError, HTTPException) as error:
        return f"no answer from {connection.host}:{connection.port}: {error}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"{answer.status} {text}"


def _connection(settings: Settings) -> HTTPConnection:
    host = _EVERYWHERE.get(settings.host, settings.host)
    if settings.tls_cert_file is None:
        return HTTPConnection(host, settings.port, timeout=TIMEOUT_S)
    # The certificate is made out for the name that clients use, which is not this address; and
    # nothing is sent that anybody could want.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, settings.port, timeout=TIMEOUT_S, context=context)
