"""Who may use the data plane."""

from __future__ import annotations

import pytest

from proxy.errors import Unauthorized
from proxy.exchange.client_keys import ClientKeys
from proxy.exchange.ports import Headers

KEYS = ClientKeys(["sk-good", "sk-other", "schlüssel"])


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer sk-good")],
        [(b"authorization", b"bearer   sk-other ")],
        [(b"api-key", b"sk-good")],
        [(b"api-key", "schlüssel".encode())],
        [(b"x", b"y"), (b"authorization", b"Basic sk"), (b"api-key", b"sk-other")],
        # One key for a gateway before us, one for us
        [(b"authorization", b"Bearer entra-token"), (b"api-key", b"sk-good")],
        [(b"api-key", b"theirs"), (b"authorization", b"Bearer sk-good")],
    ],
)
def test_an_accepted_key_lets_pass(headers: Headers) -> None:
    KEYS.check(headers)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([], "No API key"),
        ([(b"authorization", b"Basic sk-good")], "No API key"),
        ([(b"authorization", b"sk-good")], "No API key"),
        ([(b"authorization", b"Bearer")], "No API key"),
        ([(b"x-api-key", b"sk-good")], "No API key"),
        ([(b"authorization", b"Bearer ")], "not one"),
        ([(b"api-key", b"")], "not one"),
        ([(b"api-key", b"sk-goo")], "not one"),
        ([(b"api-key", b"sk-good ")], "not one"),
        ([(b"api-key", b"SK-GOOD")], "not one"),
        ([(b"api-key", b"x" * 100_000)], "not one"),
    ],
)
def test_anything_else_is_refused_without_repeating_the_key(headers: Headers, said: str) -> None:
    with pytest.raises(Unauthorized, match=said) as refusal:
        KEYS.check(headers)
    assert (refusal.value.status, refusal.value.code) == (401, "invalid_api_key")
    assert "sk-" not in str(refusal.value)


def test_without_keys_everybody_may() -> None:
    ClientKeys([]).check([])
    ClientKeys([]).check([(b"api-key", b"whatever")])


def test_an_empty_key_is_a_mistake_not_an_open_door() -> None:
    with pytest.raises(ValueError, match="empty"):
        ClientKeys(["sk-good", ""])


def test_the_object_shows_no_key() -> None:
    assert "sk-good" not in repr(vars(KEYS))
