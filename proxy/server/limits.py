"""What one client may ask of the listener: sizes, times and connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BODY_BYTES_PER_S: Final = 16 * 1024
"""A body that comes as fast as this never runs out of time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the public listener. Sizes in bytes, times in seconds of the trio clock."""

    head_bytes: int = 64 * 1024
    """Request line and headers together; more is refused with 431. The headers that some single
    sign-on systems add do not fit into the 8 to 16 KiB that many servers allow."""

    header_count: int = 200
    """Headers in one request; more is refused with 431."""

    target_bytes: int = 16 * 1024
    """Length of the request target; more is refused with 414."""

    body_bytes: int = 100 * 1024 * 1024
    """Length of a decoded request body; more is refused with 413."""

    head_timeout_s: float = 10.0
    """From the first byte of a request to the end of its head; later is answered with 408. Also
    the longest TLS handshake."""

    body_timeout_s: float = 30.0
    """How long a body may take, extended by one second for every `body_bytes_per_s` received: one
    rule that catches a sender that stops and one that trickles, and lets a large upload over a
    slow line through."""

    body_bytes_per_s: int = BODY_BYTES_PER_S

    keep_alive_s: float = 75.0
    """How long a connection may wait for its first or its next request. Above the 60 s of common
    cloud load balancers, so that they, not we, close first."""

    send_stall_s: float = 60.0
    """How long a client may refuse to take a single byte of its answer before it is given up."""

    drain_bytes: int = 64 * 1024
    """How much of a request body that nobody read is taken off the wire to keep a connection."""

    linger_s: float = 2.0
    """How long a connection is read after a last answer, so that the client gets to see it."""

    connections: int = 10_000
    """Open client connections in total; one more is answered with 503."""

    connections_per_address: int = 4_000
    """Open connections from one client address; one more is answered with 503. High, because
    everybody behind one load balancer shares an address."""

    backlog: int = 2_048
    """Connections that the kernel keeps until they are accepted; it applies its own cap."""
