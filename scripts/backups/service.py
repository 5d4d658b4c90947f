"""The admin API of a running service, as a client sees it."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, urlsplit

Json: TypeAlias = dict[str, Any]

_TIMEOUT_S = 30.0
_LARGEST_ANSWER_BYTES = 64 * 1024 * 1024


class ServiceFailed(Exception):
    """The service could not be asked, or did not answer as it should; the text says how."""


class Answer(NamedTuple):
    status: int
    document: Json

    @property
    def message(self) -> str:
        return str(self.document.get("message", f"status {self.status}"))


class Service:
    """One running service. No HTTP proxy and no redirect is used: the admin key goes nowhere else.

    Errors of all methods: `ServiceFailed`.
    """

    def __init__(self, url: str, admin_key: str = "") -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ServiceFailed(f"{url!r} is no address such as http://127.0.0.1:3010")
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, port
        self._prefix = parts.path.rstrip("/")
        self._headers = {"X-Admin-API-Key": admin_key} if admin_key else {}

    def is_up(self) -> bool:
        """Whether it says that it lives. A certificate will do that is not for this address, such
        as 127.0.0.1: somebody is there, and is told no key."""
        try:
            return self.ask("GET", "/healthz").status == 200
        except ServiceFailed as error:
            return isinstance(error.__context__, ssl.SSLCertVerificationError)

    def ask(self, method: str, path: str, document: object = None) -> Answer:
        """The answer, whatever its status, unless the admin key was refused."""
        body = None if document is None else json.dumps(document).encode()
        try:
            status, content = self._exchange(method, path, body)
            answer = Answer(status, json.loads(content) if content else {})
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServiceFailed(f"no answer from {self.url}: {reason}") from None
        except ValueError:
            raise ServiceFailed(f"{self.url}{path} did not answer in JSON") from None
        if status == 401:
            raise ServiceFailed(f"{self.url} refuses the admin key: see ADMIN_API_KEY")
        if not isinstance(answer.document, dict):
            raise ServiceFailed(f"{self.url}{path} did not answer with a JSON object")
        return answer

    def get(self, path: str) -> Json:
        """The document of a 200 answer."""
        answer = self.ask("GET", path)
        if answer.status != 200:
            raise ServiceFailed(f"{self.url}{path} answered {answer.status}: {answer.message}")
        return answer.document

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            headers = {**self._headers, "Content-Type": "application/json"}
            connection.request(method, self._prefix + path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(_LARGEST_ANSWER_BYTES)
        finally:
            connection.close()


def instance_path(name: str, part: str = "") -> str:
    path = f"/admin/instances/{quote(name, safe='')}"
    return f"{path}/{part}" if part else path
