"""Timed exclusions: what an upstream has said or shown, and until when it keeps requests away.

Three kinds by failure domain: the instance's credential, one model's limit, one model's existence.
Each has an end. A later hint never shortens an earlier bench; a success never ends one.

A hint may be wrong: clocks differ, and others use the quota. So when the bench of a limit ends, one
request is let through first, and the others once it has not been refused at once. If it has, the
next bench is longer, whatever the hint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actors.clock import is_epoch
from actors.policy.headroom import Obstacle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.clock import WallClock
    from actors.messages import LeaseId

DEFAULT_BENCH_S: Final = 10.0
"""For a 429 without any hint; the value that Azure's own balancer samples use."""
MAX_BENCH_S: Final = 3600.0
"""Free-trial deployments answer "retry after 86400 seconds"; ask again once an hour instead."""
CREDENTIAL_BENCH_S: Final = 60.0
"""Keys and network rules are mended by people; a minute keeps the cost of asking negligible."""
MODEL_BENCH_S: Final = 60.0
"""Azure says of a missing deployment: created within the last five minutes, try again shortly."""
PROBE_S: Final = 1.0
"""A refusal takes far less; an answer may take a minute."""
LEAST_S: Final = 1.0
"""The bench after a probe that was refused; it doubles with each, up to the default."""
LONG_AGO: Final = float("-inf")
MAX_BENCHES: Final = 256
"""Models remembered per kind of bench; a generic instance takes any name that a client invents."""
EVERY_MODEL: Final = ""
"""Key of a bench that an operator set: it speaks of the instance, not of one model."""


class Benches:
    """Synchronous; times are trio time in seconds.

    `credential`: until when nothing is sent at all. `limits`, `models`: model → until when its
    limit is taken to be exhausted, or it is taken not to exist here.
    """

    __slots__ = ("_probations", "credential", "limits", "models")

    def __init__(self) -> None:
        self.credential = LONG_AGO
        self.limits: dict[str, float] = {}
        self.models: dict[str, float] = {}
        self._probations: dict[str, _Probation] = {}

    def missing(self, model: str, now: float) -> Obstacle | None:
        """What keeps `model` away whatever is asked: no credential, or no such model."""
        if self.credential > now:
            return Obstacle("bad_credential", self.credential)
        if self.models and self.models.get(model, LONG_AGO) > now:
            return Obstacle("model_missing", self.models[model])
        return None

    def limited(self, model: str, now: float) -> Obstacle | None:
        """Whether the limit of `model` is exhausted."""
        if not self.limits:
            return None
        until = max(self.limits.get(model, LONG_AGO), self.limits.get(EVERY_MODEL, LONG_AGO))
        if until <= now and model in self._probations:
            until = self._probations[model].until
        return Obstacle("rate_limited", until) if until > now else None

    def limited_until(self, now: float) -> float | None:
        """The end of the last bench of a limit that has not ended; None if there is none."""
        latest = max(self.limits.values(), default=LONG_AGO)
        return latest if latest > now else None

    def refuse_credential(self, now: float) -> None:
        self.credential = max(self.credential, now + CREDENTIAL_BENCH_S)

    def refuse_model(self, model: str, now: float) -> None:
        _extend(self.models, model, now + MODEL_BENCH_S)

    def limit(self, model: str, lease_id: LeaseId, hint_s: float | None, now: float) -> None:
        """A request was refused. `hint_s`: how long the upstream asked to be left alone."""
        bench_s = DEFAULT_BENCH_S if hint_s is None else hint_s
        probation = self._probations.setdefault(model, _Probation())
        if probation.probe == lease_id:
            probation.failed()
        probation.begin_anew()  # whoever was the probe, another bench follows
        bench_s = max(bench_s, probation.least_s)
        _extend(self.limits, model, now + min(bench_s, MAX_BENCH_S))
        if len(self._probations) > MAX_BENCHES:
            del self._probations[next(iter(self._probations))]

    def granted(self, model: str, lease_id: LeaseId, now: float) -> None:
        """A request for `model` is let through: the first one after a bench is the probe."""
        probation = self._probations.get(model)
        if probation is None:
            return
        if probation.probe is None:
            probation.probe, probation.until = lease_id, now + PROBE_S
        elif probation.until <= now:
            del self._probations[model]
            self.limits.pop(model, None)

    def limit_everything(self, until: float) -> None:
        """An operator's word, instead of whatever was known."""
        self.clear_limits()
        self.limits[EVERY_MODEL] = until

    def clear_limits(self) -> None:
        self.limits.clear()
        self._probations.clear()

    def clear(self) -> None:
        self.credential = LONG_AGO
        self.clear_limits()
        self.models.clear()

    def export(self, now: float, clock: WallClock) -> dict[str, dict[str, float]]:
        """For the state file: of the benched limits, model → epoch seconds; of those after whose
        bench one request is to go first, model → how many seconds the next bench lasts at least.

        A refused credential and a missing model are not kept: to restart is how people mend them.
        """
        limits = {
            model: round(clock.epoch(until), 3)
            for model, until in self.limits.items()
            if until > now
        }
        return {
            "limits": limits,
            "probations": {model: found.least_s for model, found in self._probations.items()},
        }

    def restore(self, exported: Mapping[str, Any], clock: WallClock) -> None:
        """Takes back an `export`; ignores what is malformed."""
        limits, probations = exported.get("limits"), exported.get("probations")
        if isinstance(limits, dict):
            self.limits = {
                str(model): clock.trio_time(until)
                for model, until in limits.items()
                if is_epoch(until)
            }
        if isinstance(probations, dict):
            for model, least_s in list(probations.items())[:MAX_BENCHES]:
                if isinstance(least_s, int | float) and 0 <= least_s <= DEFAULT_BENCH_S:
                    self._probations[str(model)] = _Probation(least_s)
                    self.limits.setdefault(str(model), LONG_AGO)


class _Probation:
    """After a bench. `probe`: the first request since, if there was one; `until`: nobody else is
    let through before. `least_s`: how long the next bench lasts at the least."""

    __slots__ = ("least_s", "probe", "until")

    def __init__(self, least_s: float = 0.0) -> None:
        self.probe: LeaseId | None = None
        self.until = LONG_AGO
        self.least_s = least_s

    def begin_anew(self) -> None:
        self.probe, self.until = None, LONG_AGO

    def failed(self) -> None:
        self.least_s = min(max(LEAST_S, 2 * self.least_s), DEFAULT_BENCH_S)


def _extend(benches: dict[str, float], model: str, until: float) -> None:
    """The later end counts: a shorter hint never ends an earlier bench."""
    benches[model] = max(until, benches.pop(model, LONG_AGO))
    if len(benches) > MAX_BENCHES:
        del benches[min(benches, key=benches.__getitem__)]
