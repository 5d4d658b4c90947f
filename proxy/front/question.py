"""What a request would ask the router for, if it were sent: read as the exchange reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actors.errors import InvalidChange
from actors.mailbox import Reply
from actors.messages import Acquire, Demand, LeaseId
from actors.problems import shown, unknown_field
from proxy.errors import BadRequest, ProxyError
from proxy.exchange.affinity import affinity
from proxy.exchange.call import Call, json_call
from proxy.exchange.operations import Target, find
from proxy.exchange.patience import Patience, patience

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.bound.binding import Binding
    from proxy.exchange.attempts import Means
    from proxy.exchange.ports import Headers

SUMMARY_FIELDS: Final = ("model", "input_tokens", "max_tokens")
_MOST_TOKENS: Final = 10**9


class Question(NamedTuple):
    """`ask`: what the router would be asked. `call`: None if only numbers are given. `refused`:
    the code with which the request would be refused before the router is asked; else None."""

    ask: Acquire
    call: Call | None = None
    refused: str | None = None


class Questions:
    """Reads questions. `known`: to whom a JSON document is bound, as far as that is known without
    asking anybody; errors: `ProxyError`."""

    def __init__(self, means: Means, known: Callable[[Mapping[str, Any]], Binding | None]) -> None:
        self._means = means
        self._known = known

    def read(
        self, path: str | None, headers: Headers, body: bytes, document: dict[str, Any], now: float
    ) -> Question:
        """`document`, which `body` holds, as if it were sent to `path` with these headers.

        Without a path it tells by its shape what it is for. `now`: trio time. Errors:
        `InvalidChange` for what no client could send.
        """
        try:
            wish = patience(headers, self._means.max_wait_s)
            target = _by_shape(document) if path is None else _by_path(path)
            if target is None:
                return Question(_ask(self._summary(document), wish, now))
            assert target.operation is not None
            call = json_call(target.operation, target.model, body, document, self._means.allowance)
        except BadRequest as error:
            raise InvalidChange([(error.param or "document", error.message)]) from None
        return self._of(call, len(body), wish, now)

    def _of(self, call: Call, body_bytes: int, wish: Patience, now: float) -> Question:
        refused = None
        if call.operation.kept:
            try:
                call.binding = self._known(call.document)
            except ProxyError as error:
                refused = error.code
        ask = _ask(call.demand, wish, now)._replace(
            affinity=affinity(call.document, call.model, body_bytes),
            avoided=self._means.missing.at(call.operation.path, now),
        )
        if refused is not None:
            ask = ask._replace(only=frozenset())
        elif call.binding is not None:
            ask = ask._replace(only=call.binding.instances)
        return Question(ask, call, refused)

    def _summary(self, document: dict[str, Any]) -> Demand:
        model = document.get("model")
        if not isinstance(model, str) or not model:
            raise InvalidChange([("model", f"must be a model's name, not {shown(model)}")])
        problems = [
            unknown_field(field, SUMMARY_FIELDS)
            for field in document
            if field not in SUMMARY_FIELDS
        ]
        numbers: dict[str, int] = {}
        for field, default in (
            ("input_tokens", 0),
            ("max_tokens", self._means.allowance.expected(model)),
        ):
            value = document.get(field, default)
            if type(value) is not int or not 0 <= value <= _MOST_TOKENS:
                problems.append((field, f"must be a whole number from 0 on, not {shown(value)}"))
            else:
                numbers[field] = value
        if problems:
            raise InvalidChange(problems)
        tokens = numbers["input_tokens"]
        return Demand(model, tokens, tokens, tokens, numbers["max_tokens"])


def _ask(demand: Demand, wish: Patience, now: float) -> Acquire:
    """No lease is meant, so it has no number, and nobody waits for the reply."""
    return Acquire(
        LeaseId(0), demand, now + wish.wait_s, Reply(), priority=wish.priority, again=wish.again
    )


def _by_path(path: str) -> Target:
    target = find(path)
    if target is None or target.operation is None or target.operation.body != "json":
        problem = f"must be where a JSON request for a model is sent, not {shown(path)}"
        raise InvalidChange([("path", problem)])
    return target


def _by_shape(document: dict[str, Any]) -> Target | None:
    """None for a summary in numbers."""
    if "messages" in document:
        return find("/v1/chat/completions")
    if "prompt" in document:
        return find("/v1/completions")
    if "input" in document:
        return find("/v1/embeddings" if _embeds(document) else "/v1/responses")
    return None


def _embeds(document: dict[str, Any]) -> bool:
    """By the usual names of such models, or by an input of tokens, which no other one takes."""
    model, given = document.get("model"), document["input"]
    first = given[0] if isinstance(given, list) and given else None
    return (isinstance(model, str) and "embed" in model) or isinstance(first, int | list)
