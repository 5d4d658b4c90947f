"""Who may use the data plane."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING

from proxy.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxy.exchange.ports import Headers


class ClientKeys:
    """The accepted client keys, kept as keyed digests; none means that everybody may.

    Looking up a digest under a secret random key takes no time that a guesser could learn from,
    and the same whether there is one key or a thousand.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        """Errors: `ValueError` for an empty key, which every client would have."""
        accepted = list(keys)
        if not all(accepted):
            raise ValueError("a client key is empty")
        self._secret = secrets.token_bytes(32)
        self._digests = frozenset(self._digest(key.encode()) for key in accepted)

    def _digest(self, key: bytes) -> bytes:
        return blake2b(key, key=self._secret, digest_size=32).digest()

    def check(self, headers: Headers) -> None:
        """Errors: `Unauthorized` if keys are configured and the request has none of them."""
        if not self._digests:
            return
        given = False
        for key in _given(headers):
            if self._digest(key) in self._digests:
                return
            given = True
        raise Unauthorized(
            "The API key is not one that this proxy accepts."
            if given
            else "No API key was given. Send it as `Authorization: Bearer KEY` or `api-key: KEY`."
        )


def _given(headers: Headers) -> Iterator[bytes]:
    """The keys that a request brings; some clients send one for us and one for a gateway."""
    for name, value in headers:
        if name == b"api-key":
            yield value
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            yield value[7:].strip()
