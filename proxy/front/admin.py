"""The admin API: configuration and state of the instances, over HTTP.

Everything under `/admin` takes the admin key; whoever lacks it learns nothing, not even which
addresses exist. Secrets are masked in every answer.
"""

from __future__ import annotations

import hmac
import json
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from quart import Blueprint, request
from werkzeug.exceptions import BadRequest

from actors.changes import masked, new_config
from actors.errors import ChangeRefused, InvalidChange, InvalidEdit, NameTaken, UnknownInstance
from actors.models import InstanceState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.admin_messages import Instance
    from actors.changes import Difference
    from actors.migration import MigrationPlan
    from actors.models import InstanceConfig

PREFIX = "/admin"
KEY_HEADER = "X-Admin-API-Key"
MAX_BODY_BYTES = 1024 * 1024
"""A configuration with a thousand models is a tenth of this."""

MAX_LISTED = 100
"""Problems named in one answer; a file can have thousands."""
_REMEDY = (
    f"correct the file and POST {PREFIX}/config/reload, or discard the edit with "
    f"POST {PREFIX}/config/reload?discard=true"
)

Answer: TypeAlias = tuple[dict[str, Any], int] | tuple[dict[str, Any], int, dict[str, str]]


class Administration(Protocol):
    """Whoever owns the instances. Implemented by `actors.administration.Administration`.

    Errors of all methods: those of `actors.errors`; a plain `ChangeRefused` says that the
    question could not be taken at all (too many at once, shutting down).
    """

    async def read(self) -> dict[str, Instance]: ...

    async def read_one(self, name: str) -> Instance: ...

    async def add(self, config: InstanceConfig) -> None: ...

    async def update_config(self, name: str, changes: Mapping[str, Any]) -> tuple[str, ...]: ...

    async def update_state(self, name: str, changes: Mapping[str, Any]) -> InstanceState: ...

    async def remove(self, name: str) -> None: ...

    async def migrate(self, document: object, *, overwrite: bool) -> MigrationPlan: ...

    async def reload(self, *, discard: bool = False) -> Difference: ...


class AdminKey:
    """The key that opens the admin API, kept as a digest."""

    def __init__(self, key: str) -> None:
        if not key:
            raise ValueError("the admin key must not be empty")
        self._digest = sha256(key.encode()).digest()

    def admits(self, given: str | None) -> bool:
        """Whether a header value is the key. `given` is the header's bytes as Latin-1, as Quart
        decodes it. Takes the same time wherever, and however long, a wrong key is wrong."""
        if given is None:
            return False
        digest = sha256(given.encode("latin-1", "replace")).digest()
        return hmac.compare_digest(digest, self._digest)


class AdminApi:
    """The views. Each is one question to the administration and its answer as JSON."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def blueprint(self) -> Blueprint:
        """The routes, to be registered on an application that checks the admin key itself."""
        api = Blueprint("admin", __name__, url_prefix=PREFIX)
        api.register_error_handler(ChangeRefused, refused)
        routes = (
            ("GET", "/instances", self.list_instances),
            ("POST", "/instances", self.add_instance),
            ("DELETE", "/instances/<name>", self.delete_instance),
            ("GET", "/instances/<name>/config", self.get_config),
            ("PUT", "/instances/<name>/config", self.put_config),
            ("GET", "/instances/<name>/state", self.get_state),
            ("PUT", "/instances/<name>/state", self.put_state),
        )
        for method, path, view in routes:
            api.add_url_rule(path, view.__name__, view, methods=[method])
        return api

    async def list_instances(self) -> Answer:
        instances = {
            name: {"config": masked(instance.config), "state": _shown(instance.state)}
            for name, instance in (await self._administration.read()).items()
        }
        return {"status": "success", "count": len(instances), "instances": instances}, 200

    async def add_instance(self) -> Answer:
        config = new_config(await json_object())
        await self._administration.add(config)
        where = f"{PREFIX}/instances/{config.name}/config"
        return *_success(f"instance {config.name!r} was added", 201), {"Location": where}

    async def delete_instance(self, name: str) -> Answer:
        await self._administration.remove(name)
        return _success(f"instance {name!r} was deleted; its running requests finish")

    async def get_config(self, name: str) -> Answer:
        return masked((await self._administration.read_one(name)).config), 200

    async def put_config(self, name: str) -> Answer:
        changed = await self._administration.update_config(name, await json_object())
        what = f"changed {', '.join(changed)}" if changed else "nothing to change"
        return _success(f"instance {name!r}: {what}")

    async def get_state(self, name: str) -> Answer:
        return _shown((await self._administration.read_one(name)).state), 200

    async def put_state(self, name: str) -> Answer:
        changes = await json_object()
        await self._administration.update_state(name, changes)
        what = f"set {', '.join(changes)}" if changes else "nothing to change"
        return _success(f"state of instance {name!r}: {what}")


def owns(path: str) -> bool:
    """Whether `path` belongs to the admin API, whether anything is there or not."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def unauthorized() -> Answer:
    message = f"the admin API takes its key in the header {KEY_HEADER}"
    challenge = {"WWW-Authenticate": f'{KEY_HEADER} realm="admin"'}
    return failure(message), 401, challenge


def failure(message: str) -> dict[str, Any]:
    return {"status": "error", "message": message}


def refused(error: ChangeRefused) -> Answer:
    """The answer to a change that was not made. What is no fault of the caller's is a 503:
    nothing has changed, and the same request can succeed later."""
    match error:
        case UnknownInstance():
            return failure(str(error)), 404
        case NameTaken():
            return failure(str(error)), 409
        case InvalidChange():
            return {**failure(str(error)), "errors": _listed(error.problems)}, 422
        case InvalidEdit():
            message = f"{error}; {_REMEDY}"
            return {**failure(message), "errors": _listed(error.problems)}, 409
        case _:
            return failure(str(error)), 503


def _listed(problems: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"field": field, "message": message} for field, message in problems[:MAX_LISTED]]


def _success(message: str, status: int = 200) -> tuple[dict[str, Any], int]:
    return {"status": "success", "message": message}, status


def _shown(state: InstanceState) -> dict[str, Any]:
    """Without the fields that a newer version wrote: nobody here knows what they hold."""
    return state.model_dump(mode="json", include=set(InstanceState.model_fields))


async def json_object() -> dict[str, Any]:
    """The request body as a JSON object, whatever its content type says: curl calls a body a
    form unless told otherwise.

    Errors: `BadRequest` if it is no JSON, `InvalidChange` if it is JSON but no object.
    """
    return json_object_in(await body_bytes())


async def body_bytes() -> bytes:
    """The request body as it came."""
    return await request.get_data(cache=False, as_text=False, parse_form_data=False)


def json_object_in(body: bytes) -> dict[str, Any]:
    """As `json_object`, of a body that has been read."""
    try:
        document = json.loads(
            body.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_without_repetition
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"the body is not valid JSON: {reason}") from None
    if not isinstance(document, dict):
        raise InvalidChange([("document", "must be a JSON object")])
    return document


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 section 4 leaves the meaning of a repeated name open, so it is refused."""
    document = dict(pairs)
    if len(document) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"{names.most_common(1)[0][0]!r} is there twice")
    return document
