"""Who may call a resource."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from proxy.simulator import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxy.simulator.surface import Dialect

_BEARER = b"bearer "


class Access:
    """The keys and the Entra tokens that a resource accepts. Shows neither."""

    def __init__(self, api_keys: Iterable[str], entra_tokens: Iterable[str]) -> None:
        self._keys = tuple(key.encode() for key in api_keys)
        self._tokens = tuple(token.encode() for token in entra_tokens)

    def authorize(self, headers: Mapping[bytes, bytes], dialect: Dialect) -> None:
        """Errors: `ApiError` 401 when neither a key nor a token is right for this dialect.

        The dated API takes a key as `api-key` and a token as Bearer; v1 takes the key either way;
        the plain dialect takes it as Bearer.
        """
        key = headers.get(b"api-key", b"")
        authorization = headers.get(b"authorization", b"")
        bearer = authorization[7:] if authorization[:7].lower() == _BEARER else b""
        if dialect == "plain":
            if not _among(bearer, self._keys):
                raise catalogue.bad_key_plain()
            return
        if _among(key, self._keys) or _among(bearer, self._tokens):
            return
        if dialect == "v1" and _among(bearer, self._keys):
            return
        raise catalogue.bad_token() if bearer and not key else catalogue.bad_key()


def _among(given: bytes, accepted: tuple[bytes, ...]) -> bool:
    """In constant time for a number of accepted values. An empty value is never accepted."""
    found = False
    for each in accepted:
        found |= hmac.compare_digest(given, each)
    return found and given != b""
