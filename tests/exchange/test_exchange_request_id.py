"""The id under which a request is found."""

from __future__ import annotations

import re

import pytest

from proxy.exchange.request_id import request_id


@pytest.mark.parametrize("given", [b"a", b"3f0c-11", b"A_b.c-9", b"x" * 64])
def test_a_harmless_id_of_the_clients_is_kept(given: bytes) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize(
    "given",
    [
        None,
        b"",
        b"x" * 65,
        b"a b",
        b"a\n",
        b"a\r\nset-cookie: x",
        b"../x",
        b"<b>",
        b"\xc3\xa9",
        b"%41",
    ],
)
def test_any_other_is_replaced_by_a_new_one_that_would_be_kept(given: bytes | None) -> None:
    made = request_id(given)
    assert made != given
    assert re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]{8}", made)
    assert request_id(made) == made


def test_new_ids_do_not_repeat() -> None:
    assert len({request_id(None) for _ in range(1000)}) == 1000
