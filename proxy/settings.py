"""The settings of the process, from environment variables and a `.env` file.

Each field is the variable of the same name in capitals. The environment wins over the file, an
empty value counts as none, and variables that are not listed here are ignored.
"""

from __future__ import annotations

import ipaddress
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from actors.problems import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

_MIB: Final = 1024 * 1024
_SECRET: Final = frozenset({"admin_api_key", "metrics_api_key", "proxy_api_keys"})


class SettingsError(Exception):
    """The settings can't be used. One line for each problem, naming the variable; no secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _fits_a_header(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("holds a key that is not printable ASCII without spaces")
    return key


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    keys = list(dict.fromkeys(key.strip() for key in value.split(",") if key.strip()))
    if not keys:
        raise ValueError("names no key; list keys with commas between them, or unset it")
    return keys


def _in_capitals(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Key = Annotated[SecretStr, AfterValidator(_fits_a_header)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseModel):
    """Everything that is fixed for the life of the process. Made by `load_settings`."""

    model_config = ConfigDict(frozen=True)

    instance_config_file: Path = Path("instance_configs.json")
    """The instances' configuration."""
    instance_state_file: Path = Path("instance_states.json")
    """What was observed of the instances; kept over a restart."""
    instance_data_file: Path = Path("instance_data.json")
    """The earlier system's combined data: what a migration reads unless it is sent a document."""

    host: str = "127.0.0.1"
    """The address to listen on: an IP address or a host name."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 3010
    """The TCP port to listen on; 0 takes a free one."""

    tls_cert_file: Path | None = None
    """The certificate with its chain (PEM). With `TLS_KEY_FILE`: serve HTTPS, and only that."""
    tls_key_file: Path | None = None
    """The certificate's private key (PEM), without a password."""

    admin_api_key: Key = Field(default_factory=lambda: SecretStr(secrets.token_urlsafe(32)))
    """The key for `/admin` (`X-Admin-API-Key`). Unset: a new one for each start."""
    metrics_api_key: Key | None = None
    """A key that reads `/metrics` and nothing else; the admin key does too."""
    proxy_api_keys: Annotated[tuple[Key, ...], BeforeValidator(_split)] = ()
    """The clients' keys, with commas between them. Unset: every client is served."""
    allow_anonymous: bool = False
    """Permits a `HOST` that others can reach without any `PROXY_API_KEYS`."""

    routing_strategy: Literal[
        "priority", "failover", "weighted", "round_robin", "least_loaded", "random"
    ] = "priority"
    """How an instance is chosen among those that could serve a request."""
    max_queue_wait_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 10.0
    """How long a request may wait for capacity; 0: not at all."""
    max_waiting_requests: Count = 10_000
    """How many requests may wait for capacity at once; one more is refused with 429."""

    max_remembered_ids: Count = 100_000
    """Of responses, files and other things that live on one instance, the ids whose instance is
    remembered; the longest unused are forgotten, and searched for when they are needed."""

    max_request_bytes: Annotated[int, Field(ge=1024, le=4096 * _MIB)] = 32 * _MIB
    """The largest request body; a larger one is refused with 413."""
    max_header_bytes: Annotated[int, Field(ge=1024, le=_MIB)] = 64 * 1024
    """Request line and headers of one request together; more is refused with 431."""
    max_connections: Count = 10_000
    """Open client connections; one more is answered with 503."""
    max_connections_per_client: Annotated[int, Field(ge=0, le=1_000_000)] = 4_000
    """Open connections from one client address; one more is answered with 503. High, because
    everybody behind one load balancer shares an address; 0: no limit but `MAX_CONNECTIONS`."""
    max_concurrent_requests: Count = 10_000
    """Requests in progress, waiting ones included; one more is refused with 503."""
    request_timeout_seconds: Seconds = 60.0
    """How long a client may take to send one request, with a second more for each 16 KiB of body
    received (none for the admin API); then 408. Its headers get ten seconds of that at the most."""
    keep_alive_seconds: Seconds = 75.0
    """How long a client connection may stay open without a request."""
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    """How long everybody is still served after SIGTERM, with `/readyz` answering 503, so that a
    load balancer has stopped sending before connections are refused."""
    shutdown_timeout_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 30.0
    """How long requests may go on after SIGTERM before they are cut."""

    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_in_capitals)
    ] = "INFO"
    """The least important messages that are logged."""
    log_dir: Path | None = None
    """A folder for a rotating log file, made if need be, in addition to standard error."""
    log_format: Literal["text", "json"] = "text"
    """`text` for people (key=value), `json` for machines (an object per line)."""

    @property
    def admin_key_generated(self) -> bool:
        """Whether nobody but this process knows the admin key yet."""
        return "admin_api_key" not in self.model_fields_set


def environment(environ: Mapping[str, str], env_file: Path | None) -> dict[str, str]:
    """`environ` completed by `env_file`: what is set and not empty there wins.

    A missing file adds nothing, and `$` in a value stays a `$`.
    Errors: `SettingsError` when the file is not text.
    """
    try:
        added = {} if env_file is None else dotenv_values(env_file, interpolate=False)
    except UnicodeDecodeError:
        raise SettingsError([f"{env_file} is not UTF-8 text"]) from None
    given = [*added.items(), *environ.items()]
    return {variable: value for variable, value in given if value}


def load_settings(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """The settings that `environ` and `env_file` give. Errors: `SettingsError`, every problem."""
    given = environment(environ, env_file)
    try:
        settings = Settings.model_validate(
            {
                field: given[field.upper()]
                for field in Settings.model_fields
                if field.upper() in given
            }
        )
    except ValidationError as error:
        raise SettingsError(
            [_sentence(details) for details in error.errors(include_url=False)]
        ) from None
    if conflicts := list(_conflicts(settings)):
        raise SettingsError(conflicts)
    return settings


def _conflicts(settings: Settings) -> Iterator[str]:
    """What is wrong with settings that are each right by itself."""
    host, configs = settings.host, settings.instance_config_file
    if not (settings.proxy_api_keys or settings.allow_anonymous or _is_loopback(host)):
        yield (
            f"HOST is {host!r}, which others can reach, and PROXY_API_KEYS is not set: anybody "
            "could spend your quota; set PROXY_API_KEYS, or HOST=127.0.0.1, or ALLOW_ANONYMOUS=1"
        )
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        given, missing = "TLS_CERT_FILE", "TLS_KEY_FILE"
        if settings.tls_cert_file is None:
            given, missing = missing, given
        yield f"{given} is set and {missing} is not; HTTPS needs both: set it too, or unset both"
    if configs.resolve() == settings.instance_state_file.resolve():
        yield (
            f"INSTANCE_CONFIG_FILE and INSTANCE_STATE_FILE are both {str(configs)!r}; "
            "they must be two files"
        )


def _sentence(details: ErrorDetails) -> str:
    field, message = str(details["loc"][0]), details["msg"].partition(", unable to")[0]
    if field in _SECRET:
        return f"{field.upper()} {message.removeprefix('Value error, ')}"
    rule = message.removeprefix("Input should ") if message.startswith("Input") else "be valid"
    default = Settings.model_fields[field].default
    return f"{field.upper()} must {rule}, not {shown(details['input'])}; unset, it is {default}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
