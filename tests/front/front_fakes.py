"""What the front end talks to, without actors, upstreams or sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from actors.admin_messages import Instance
from actors.changes import difference, merged_config, merged_state
from actors.clock import WallClock
from actors.errors import NameTaken, UnknownInstance
from actors.messages import Acquire, Explanation
from actors.migration import plan_migration
from actors.models import InstanceConfig, InstanceState
from actors.store import EarlierData
from proxy.exchange.attempts import Means
from proxy.exchange.record import RecentRequests
from proxy.front.app import create_app
from proxy.front.explain import Explainer, RouteExplanations
from proxy.tokens.output import Allowance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from quart_trio import QuartTrio

    from actors.changes import Difference
    from actors.migration import MigrationPlan
    from proxy.bound.binding import Binding
    from proxy.exchange.ports import RequestReader, ResponseWriter
    from proxy.front.metrics import Metrics

ADMIN_KEY = "the-admin-key"
KEY = {"X-Admin-API-Key": ADMIN_KEY}


def config(name: str = "east", **fields: Any) -> InstanceConfig:
    given = {"api_key": "k-0123456789abcdef-east", "api_base": "https://east.example", **fields}
    return InstanceConfig(name=name, **given)


class FakeAdministration:
    """Instances in a dictionary. `refusal`: raised instead of any answer. `asked`: calls so far.
    `app`: room for a test to keep the application in front of it."""

    def __init__(self, *configs: InstanceConfig) -> None:
        self.instances = {
            each.name: Instance(each, InstanceState(name=each.name)) for each in configs
        }
        self.refusal: Exception | None = None
        self.asked = 0
        self.app: QuartTrio | None = None

    async def read(self) -> dict[str, Instance]:
        await self._question()
        return dict(self.instances)

    async def read_one(self, name: str) -> Instance:
        await self._question(name)
        return self.instances[name]

    async def add(self, config: InstanceConfig) -> None:
        await self._question()
        if config.name in self.instances:
            raise NameTaken(config.name)
        self.instances[config.name] = Instance(config, InstanceState(name=config.name))

    async def update_config(self, name: str, changes: Mapping[str, object]) -> tuple[str, ...]:
        await self._question(name)
        old = self.instances[name]
        merged, changed = merged_config(old.config, changes)
        self.instances[name] = Instance(merged, old.state)
        return changed

    async def update_state(self, name: str, changes: Mapping[str, object]) -> InstanceState:
        await self._question(name)
        old = self.instances[name]
        state = old.state.model_copy(update=merged_state(old.state, changes))
        self.instances[name] = Instance(old.config, state)
        return state

    async def remove(self, name: str) -> None:
        await self._question(name)
        del self.instances[name]

    async def migrate(self, document: object, *, overwrite: bool) -> MigrationPlan:
        await self._question()
        plan = plan_migration(document, self._configs(), overwrite=overwrite)
        for name, config in plan.configs.items():
            state = plan.states.get(name) or self.instances[name].state
            self.instances[name] = Instance(config, state)
        return plan

    async def reload(self, *, discard: bool = False) -> Difference:
        """An edit that removes everything is there unless it is discarded."""
        await self._question()
        old = self._configs()
        if not discard:
            self.instances.clear()
        return difference(old, self._configs())

    def _configs(self) -> dict[str, InstanceConfig]:
        return {name: instance.config for name, instance in self.instances.items()}

    async def _question(self, name: str | None = None) -> None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        if name is not None and name not in self.instances:
            raise UnknownInstance(name)


class FakeMetrics:
    async def text(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"up 1\n"


class ScriptedExchange:
    """Answers data-plane requests with whatever `script` does; notes how each script ended."""

    def __init__(
        self, script: Callable[[RequestReader, ResponseWriter], Awaitable[None]] | None = None
    ) -> None:
        self._script = script or answer_ok
        self.ended: list[str] = []
        self._news = trio.Event()

    async def wait_ended(self) -> list[str]:
        """How the scripts ended, once one has."""
        await self._news.wait()
        return self.ended

    def matches(self, path: str) -> bool:
        return path.startswith(("/v1/", "/openai/"))

    async def handle(self, reader: RequestReader, writer: ResponseWriter) -> None:
        try:
            await self._script(reader, writer)
        except trio.Cancelled:
            self.ended.append("cancelled")
            raise
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        else:
            self.ended.append("done")
        finally:
            self._news.set()


async def answer_ok(reader: RequestReader, writer: ResponseWriter) -> None:
    await read_all(reader)
    await writer.respond(200, [(b"content-type", b"text/plain")], b"ok")


async def read_all(reader: RequestReader) -> bytes:
    body = bytearray()
    while chunk := await reader.read_chunk():
        body += chunk
    return bytes(body)


class FakeExplainer:
    """Answers with what it is given, and remembers what it was asked."""

    def __init__(self, explanation: Explanation | None = None) -> None:
        self.explanation = explanation or Explanation("unknown_model", None, (), 0)
        self.asked: list[Acquire] = []

    async def explain(self, ask: Acquire) -> Explanation:
        self.asked.append(ask)
        await trio.lowlevel.checkpoint()
        return self.explanation


def explaining(
    explainer: Explainer,
    recent: RecentRequests | None = None,
    means: Means | None = None,
    known: Callable[[Mapping[str, Any]], Binding | None] | None = None,
) -> RouteExplanations:
    unused: Any = None
    return RouteExplanations(
        explainer,
        recent or RecentRequests(),
        means or Means(unused, unused, Allowance(), 10.0),
        WallClock(1_700_000_000.0),
        known or (lambda document: None),
    )


def front(
    *configs: InstanceConfig,
    administration: FakeAdministration | None = None,
    exchange: ScriptedExchange | None = None,
    ready: bool = True,
    earlier_data: EarlierData | None = None,
    metrics: Metrics | None = None,
    explanations: RouteExplanations | None = None,
    **limits: Any,
) -> QuartTrio:
    return create_app(
        administration=administration or FakeAdministration(*configs),
        exchange=exchange or ScriptedExchange(),
        ready=lambda: ready,
        earlier_data=earlier_data or EarlierData("there-is-no-such-file"),
        explanations=explanations or explaining(FakeExplainer()),
        metrics=metrics or FakeMetrics(),
        admin_key=ADMIN_KEY,
        **limits,
    )
