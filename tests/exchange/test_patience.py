from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.exchange.patience import Patience, patience


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Patience(10.0, None, 100)),
        ({b"x-max-wait-ms": b"2500"}, Patience(2.5, None, 100)),
        ({b"x-max-wait-ms": b"0"}, Patience(0.0, None, 100)),
        ({b"x-max-wait-ms": b"99000"}, Patience(10.0, None, 100)),
        ({b"x-priority": b"5"}, Patience(10.0, None, 5)),
        ({b"x-stainless-read-timeout": b"600"}, Patience(10.0, 600.0, 100)),
        ({b"x-stainless-read-timeout": b"1.5"}, Patience(1.5, 1.5, 100)),
        ({b"x-stainless-read-timeout": b"Timeout(5)"}, Patience(10.0, None, 100)),
        ({b"x-stainless-timeout": b"600"}, Patience(10.0, 600.0, 100)),
        ({b"x-stainless-timeout": b"3"}, Patience(3.0, 3.0, 100)),
        ({b"x-stainless-timeout": b"0"}, Patience(0.0, 0.0, 100)),
        ({b"x-stainless-timeout": b"NaN"}, Patience(10.0, None, 100)),
        ({b"x-stainless-retry-count": b"0"}, Patience(10.0, None, 100)),
        ({b"x-stainless-retry-count": b"10"}, Patience(10.0, None, 100, again=True)),
        ({b"x-stainless-retry-count": b"often"}, Patience(10.0, None, 100)),
    ],
)
def test_headers_say_how_long_a_client_waits(
    headers: dict[bytes, bytes], expected: Patience
) -> None:
    assert patience(list(headers.items()), 10.0) == expected


@pytest.mark.parametrize("name", [b"x-max-wait-ms", b"x-priority"])
@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"soon", b"9" * 30])
def test_what_can_not_be_read_is_refused_by_name(name: bytes, value: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        patience([(name, value)], 10.0)
    assert refused.value.param == name.decode()


@given(st.binary(max_size=20), st.floats(0, 3600))
def test_no_client_waits_longer_than_the_setting(value: bytes, setting: float) -> None:
    try:
        found = patience([(b"x-max-wait-ms", value)], setting)
    except BadRequest:
        return
    assert 0 <= found.wait_s <= setting
