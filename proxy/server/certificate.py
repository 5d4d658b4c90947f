"""The server's certificate: loaded at the start, and again when it was renewed."""

from __future__ import annotations

import logging
import ssl
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

import trio

from proxy.server.listen import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG = logging.getLogger(__name__)


class CertificateError(Exception):
    """The certificate or its key can't be used; the text says which file, why and what to do."""


class Files(NamedTuple):
    """PEM files: `certificate` with the chain that leads to it, its own first; `key` without a
    password."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What a server needs. Blocks on the two files. Errors: `CertificateError`."""
        _check_readable("TLS_CERT_FILE", self.certificate)
        _check_readable("TLS_KEY_FILE", self.key)
        try:
            return tls_context(self.certificate, self.key, _no_password)
        except _Encrypted:
            raise CertificateError(
                f"TLS_KEY_FILE: {self.key} is encrypted; a service can't type its password, so "
                "store the key without one, readable by the service only"
            ) from None
        except ssl.SSLError as error:
            raise CertificateError(self._mismatch(error)) from error
        except OSError as error:  # it was there a moment ago
            both = f"{self.certificate} or {self.key}"
            raise CertificateError(f"{both}: {error.strerror}") from error

    def _mismatch(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return (
                f"TLS_KEY_FILE: {self.key} is not the key of the first certificate in "
                f"{self.certificate}"
            )
        return (
            f"TLS_CERT_FILE, TLS_KEY_FILE: {self.certificate} and {self.key} must be PEM files, a "
            f"certificate chain and its key: {error.reason or error}"
        )

    def warning(self) -> str | None:
        """What is wrong with who may read or replace the key, if anything is. Blocks.

        A group that may read it can be meant; everybody can't. Errors: `OSError`.
        """
        mode = stat.S_IMODE(self.key.stat().st_mode)
        if sys.platform == "win32" or not mode & 0o027:
            return None
        return f"others may read or replace the private key {self.key} (mode {mode:04o}): chmod 600"


def _check_readable(setting: str, file: Path) -> None:
    """OpenSSL does not say which of two files it can't read."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise CertificateError(f"{setting}: {file}: {error.strerror}") from error


class _Encrypted(Exception):
    """The key is."""


def _no_password() -> str:
    """Instead of asking at a terminal, which would stop the event loop, or a service for ever."""
    raise _Encrypted


class Renewal:
    """Loads the files again and passes the context on. Files that can't be used leave things as
    they are."""

    def __init__(self, files: Files, use: Callable[[ssl.SSLContext], None]) -> None:
        """`use`: gets each new context; must not block."""
        self._files = files
        self._use = use
        self._turn = trio.Lock()

    async def renew(self) -> None:
        """What is in the files now is in use, or the log says why not. Raises nothing."""
        async with self._turn:  # of two at once, the one that was asked for later reads later
            try:
                context, warning = await trio.to_thread.run_sync(self._load)
            except (CertificateError, OSError) as error:
                LOG.error("certificate not reloaded, the earlier one stays: %s", error)
                return
            self._use(context)
            LOG.info("certificate reloaded from %s", self._files.certificate)
            if warning is not None:
                LOG.warning(warning)

    def _load(self) -> tuple[ssl.SSLContext, str | None]:
        return self._files.context(), self._files.warning()
