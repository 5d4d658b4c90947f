"""What of a quota survives a restart."""

from __future__ import annotations

import pytest
from limit_told import lease, says

from actors.messages import Evidence
from actors.policy.quota import Quota


def test_a_quota_restores_what_it_exported_aged() -> None:
    quota = Quota()
    quota.reserve(lease(1), 400, 0)
    quota.settle(lease(1), 400, "estimate", Evidence(1000, 500, 60, 59), 0)
    restored = Quota()
    restored.restore(quota.export(10), 20, 500)
    assert restored.free(500) == 500
    assert restored.free(500 + 32) == 900, "what others take they go on to take"
    assert restored.free(500 + 81) == 1000
    assert restored.pace.limit.value(500) == 60


def test_a_limit_is_believed_no_longer_for_having_been_saved() -> None:
    quota = Quota(1000)
    quota.limit.observe(100, 0)
    quota.pace.limit.observe(7, 0)
    for older_s, value in ((0, 100), (150, 100), (300, 1000), (7 * 86_400, 1000)):
        restored = Quota(1000)
        restored.restore(quota.export(100), older_s, 10**6)
        assert restored.limit.value(10**6) == value
        assert restored.pace.limit.value(10**6) == (7 if value == 100 else None)
    restored = Quota(1000)
    restored.restore(quota.export(100), 100, 10**6)
    assert restored.limit.value(10**6 + 101) == 1000, "as without a restart"


def test_what_others_took_is_not_kept_free_for_longer_than_without_a_restart() -> None:
    quota = Quota(1000)
    quota.others.observe(50, 0)
    quota.pace.others.observe(5, 0)
    for older_s, tokens, requests in ((60, 50, 5), (90, 0, 0)):
        restored = Quota(1000)
        restored.restore(quota.export(0), older_s, 5000)
        assert restored.others.value(5000) == tokens
        assert restored.pace.others.value(5000) == requests


def test_a_reduction_and_what_was_found_of_its_count_outlive_a_restart() -> None:
    quota, now = Quota(2000), 0
    for now in range(200):
        quota.reserve(lease(now), 10, now)
        quota.settle(lease(now), 5, "estimate", says(1500, 1500 - min(now + 1, 60) * 5), now)
    quota.reserve(lease(1000), 10, now)
    quota.refused(lease(1000), now)
    quota.settle(lease(1000), 0, "estimate", None, now)
    quota.limit.observe(1500, now)
    restored = Quota(2000)
    restored.restore(quota.export(now), 30, now + 30)
    assert restored.limit.value(now + 30) == quota.limit.value(now + 30)
    assert restored.counted(now + 30) == pytest.approx(quota.counted(now + 30), abs=10)
    assert restored.ratio.value() == pytest.approx(quota.ratio.value(), abs=0.001)
    assert restored.growth.value() == quota.growth.value()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"limit_tokens": "x", "charge": 3, "requests": [[1]], "others_tokens": "9"},
        {"limit_tokens": {"told": 10**400, "told_s": 1}, "others_tokens": 10**400},
        {"limit_tokens": {"told": 1000, "told_s": 10**400}, "limit_requests": {"told": 1}},
        {"limit_tokens": {"reduced": True, "reduced_s": 1.0}, "ratios": [1]},
        {"ratios": {"charge": 10**400, "used": "x", "ended": -1.0}, "growth": 10**400},
    ],
)
def test_a_damaged_export_is_ignored(saved: dict[str, object]) -> None:
    quota = Quota()
    quota.restore(saved, 0, 0)
    assert quota.free(0) is None
