"""The URL and the credential of one attempt, per provider. Pure.

Azure has three surfaces (learn.microsoft.com, "Azure OpenAI API version lifecycle"; the eight
deployment-scoped operations: openai-python, `lib/azure.py`): the dated one below
`/openai/deployments/{deployment}/` for most operations and below `/openai/` for the others, and
the version-less one below `/openai/v1/`, where the body names the deployment.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes

from actors.models import resolve_key
from proxy.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.models import InstanceConfig

_AZURE_V1: Final = {"v1": b"", "preview": b"api-version=preview"}
"""The values of `api_version` that mean the version-less surface, and the query each needs."""

_ENDS_IN_VERSION: Final = re.compile(r"/v[0-9]+(\.[0-9]+)*((alpha|beta)[0-9]*)?\Z")
LEAST_SECRET_BYTES: Final = 8
_QUERY_SAFE: Final = "!$&'()*+,;:@/?%=-._~"
"""What may stand in a query as it is (RFC 3986 section 3.4); `%` because it comes encoded."""


def dated_surface(config: InstanceConfig) -> bool:
    """Whether `config`'s instance speaks Azure's dated API, whose paths name the deployment; on
    the other surfaces the body does."""
    return (
        config.provider_type == "azure"
        and config.api_version not in _AZURE_V1
        and not config.api_base.endswith("/openai/v1")
    )


def endpoint(
    config: InstanceConfig, operation: str, deployment: str | None = None, query: bytes = b""
) -> str:
    """The URL at which `config`'s instance performs `operation`, such as `chat/completions`.

    `deployment`: the upstream's name for the model if the operation is deployment-scoped on
    Azure's dated surface, else None; the other surfaces take it from the body. `query`: the
    client's, without the `?`; an `api-version` in it gives way to the instance's own. Whatever
    the names hold, the path stays below the base: each is encoded as one segment.

    Errors: `NotFound` for a name that can't be a path segment (empty, `.` or `..`).
    """
    base = config.api_base
    version = b""
    if dated_surface(config):
        root = f"{base.removesuffix('/openai')}/openai"
        version = b"api-version=" + config.api_version.encode()
        if deployment is not None:
            root = f"{root}/deployments/{_segment(deployment)}"
    elif config.provider_type == "azure":
        root = f"{base.removesuffix('/v1').removesuffix('/openai')}/openai/v1"
        version = _AZURE_V1.get(config.api_version, b"")
    else:
        root = base if _ENDS_IN_VERSION.search(base) else f"{base}/v1"
    path = "/".join(map(_segment, operation.split("/")))
    full_query = _joined(version, query)
    return f"{root}/{path}?{full_query}" if full_query else f"{root}/{path}"


def auth_header(
    config: InstanceConfig, environ: Mapping[str, str] = os.environ
) -> tuple[bytes, bytes]:
    """The header that proves to the instance who we are.

    Errors: `UnresolvedReference` (`actors.models`) when `api_key` refers to a variable that is
    not set.
    """
    key = resolve_key(config.api_key, environ).encode()
    if config.provider_type == "azure":
        return b"api-key", key
    return b"authorization", b"Bearer " + key


class AddressBook:
    """`endpoint` and `auth_header`, remembered: the request path formats no string twice.

    Bounded: a full book starts anew, which costs each address one more computation.
    """

    __slots__ = ("_on_key", "_pages", "_urls_limit")
    PAGES_LIMIT: Final = 1024

    def __init__(
        self, urls_limit: int = 256, on_key: Callable[[str], None] = lambda _key: None
    ) -> None:
        """`on_key` is told each key before it is first used: the log must never show it."""
        self._on_key = on_key
        self._pages: dict[int, _Page] = {}
        self._urls_limit = urls_limit

    def endpoint(
        self,
        config: InstanceConfig,
        operation: str,
        deployment: str | None = None,
        query: bytes = b"",
    ) -> str:
        """As the function. Cost: two dictionary look-ups for a known one."""
        urls = (self._pages.get(id(config)) or self._page(config)).urls
        key = (operation, deployment, query)
        url = urls.get(key)
        if url is None:
            if len(urls) >= self._urls_limit:
                urls.clear()
            url = urls[key] = endpoint(config, operation, deployment, query)
        return url

    def auth_header(self, config: InstanceConfig) -> tuple[bytes, bytes]:
        """As the function; a reference is resolved once per configuration object."""
        page = self._pages.get(id(config)) or self._page(config)
        if page.auth is None:
            self._on_key(resolve_key(config.api_key))
            page.auth = auth_header(config)
        return page.auth

    def secret(self, config: InstanceConfig) -> bytes:
        """The credential itself, to be kept out of what is shown. Errors: as `auth_header`."""
        return self.auth_header(config)[1].removeprefix(b"Bearer ")

    def masked(self, config: InstanceConfig, text: bytes) -> bytes:
        """`text`, which an upstream wrote, without the credential that it may quote.

        What is shorter than `LEAST_SECRET_BYTES` is a placeholder for a server without keys, and
        masking it would garble the text. Errors: as `auth_header`.
        """
        secret = self.secret(config)
        return text if len(secret) < LEAST_SECRET_BYTES else text.replace(secret, b"***")

    def _page(self, config: InstanceConfig) -> _Page:
        if len(self._pages) >= self.PAGES_LIMIT:
            self._pages.clear()
        page = self._pages[id(config)] = _Page(config)
        return page


class _Page:
    """What is known of one configuration.

    It holds the configuration, so that the `id` under which it is filed can't come to belong to
    another one.
    """

    __slots__ = ("auth", "config", "urls")

    def __init__(self, config: InstanceConfig) -> None:
        self.config = config
        self.auth: tuple[bytes, bytes] | None = None
        self.urls: dict[tuple[str, str | None, bytes], str] = {}


def _segment(name: str) -> str:
    """`name` as one path segment. Encoding can't save `.` and `..`: a server may decode first."""
    if name in ("", ".", ".."):
        raise NotFound(f"There is nothing at {name!r}.")
    return quote(name, safe="", errors="replace")


def _joined(version: bytes, query: bytes) -> str:
    kept = [
        quote(parameter, safe=_QUERY_SAFE)
        for parameter in query.split(b"&")
        if parameter and _parameter_name(parameter) != b"api-version"
    ]
    if version:
        kept.insert(0, version.decode())
    return "&".join(kept)


def _parameter_name(parameter: bytes) -> bytes:
    return unquote_to_bytes(parameter.partition(b"=")[0]).strip().lower()
