"""Sockets to listen on."""

from __future__ import annotations

import errno
import socket
import ssl
import sys
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class ListenFailed(Exception):
    """The address can't be listened on; the text says why and what to do."""


async def open_listeners(host: str, port: int, *, backlog: int) -> list[trio.SocketListener]:
    """Listens on every address of `host`, all on one port; port 0 picks a free one, and an empty
    host means every address of this machine.

    The sockets have `SO_REUSEADDR`, so that a restart need not wait for old connections.
    Errors: `ListenFailed`.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host or None, backlog=backlog)
        if port == 0 and len(listeners) > 1:
            # Each address has got a port of its own: take the first one's for all.
            port = listeners[0].socket.getsockname()[1]
            for listener in listeners:
                listener.socket.close()
            listeners = await trio.open_tcp_listeners(port, host=host or None, backlog=backlog)
    except OSError as error:
        raise ListenFailed(f"cannot listen on {host}:{port}: {_reason(error)}") from error
    return listeners


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program is using this port (PORT chooses another one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address (HOST)"
    if error.errno == errno.EACCES:
        return "ports below 1024 need a privilege (PORT)"
    return error.strerror or str(error)


def url(listener: trio.SocketListener, *, tls: bool) -> str:
    """Where a client finds `listener`."""
    host, port = listener.socket.getsockname()[:2]
    if listener.socket.family == socket.AF_INET6:
        host = f"[{host}]"
    return f"{'https' if tls else 'http'}://{host}:{port}"


def tls_context(
    certificate: Path, key: Path, password: Callable[[], str] | None = None
) -> ssl.SSLContext:
    """TLS 1.2 and up, HTTP/2 and HTTP/1.1. Blocks on the two files; an encrypted key without
    `password` is asked for at the terminal.

    Errors: `OSError`, `ssl.SSLError`; what `password` raises.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.load_cert_chain(certificate, key, password)
    return context


def raise_open_file_limit() -> int:
    """Lifts this process's limit of open files to what it may have, and returns it.

    Every stream needs two sockets; the usual soft limit of 1024 is meant for programs that use
    select(). Does nothing where there is no such limit.
    """
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS refuses what the kernel's own limit exceeds.
            return soft
    return hard
