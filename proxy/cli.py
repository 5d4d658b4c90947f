"""The command line: serve, or `demo`, `check`, `health`, `migrate`, `plan`, `simulate`.

What only one command needs is imported in its branch, so that `--help` and `check` start at once.
A failure to start ends in one sentence on standard error and exit status 1; wrong usage in 2.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.models import InstanceConfig
    from proxy.settings import Settings

_ABOUT_AN_ADDRESS: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command to its end. Its exit status: 0 done, 1 failed, 130 interrupted.

    Wrong usage, `--help` and `--version` raise `SystemExit`, as argparse does.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser(arguments).parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        sentences = [_failure_to_start(leaf) for leaf in _leaves(error)]
        if None in sentences:
            raise
        for sentence in dict.fromkeys(sentences):
            print(sentence, file=sys.stderr)
        return 1


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="azure-openai-proxy",
        description="One OpenAI-shaped address in front of many Azure OpenAI resources.",
        epilog="Without a command: serve. Settings come from the environment and from .env.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--env-file", type=Path, metavar="FILE", help="read settings from FILE, not from .env"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser(
        "demo", help="serve simulated resources: needs no key, no file and no network"
    )
    check = commands.add_parser("check", help="say what is wrong in the configuration file")
    check.add_argument(
        "--config", type=Path, metavar="FILE", help="the file, not INSTANCE_CONFIG_FILE"
    )
    health = commands.add_parser("health", help="ask the running service how it is")
    if "health" in arguments:
        from proxy import health as question

        question.add_arguments(health)
    migrate = commands.add_parser("migrate", help="take the earlier system's data over")
    if "migrate" in arguments:
        from proxy import migrate as migration

        migration.add_arguments(migrate)
    plan = commands.add_parser("plan", help="find out what a traffic would do to a configuration")
    if "plan" in arguments:
        from proxy.planning import command as planning

        planning.add_arguments(plan)
    simulate = commands.add_parser("simulate", help="run simulated Azure OpenAI resources")
    if "simulate" in arguments:
        from proxy.simulator import command

        command.add_arguments(simulate)
    return parser


def _run(options: argparse.Namespace) -> int:
    _complete_environment(options.env_file)
    match options.command:
        case "check":
            return _check(options)
        case "demo":
            from proxy import demo

            return demo.run(options)
        case "health":
            from proxy import health
            from proxy.settings import load_settings

            return health.run(options, load_settings(os.environ))
        case "migrate":
            from proxy import migrate as migration

            return migration.run(options)
        case "plan":
            from proxy.planning import command as planning

            return planning.run(options)
        case "simulate":
            from proxy.simulator import command

            return command.run(options)
        case _:
            return _serve()


def _complete_environment(env_file: Path | None) -> None:
    """The `.env` file counts as environment, so that keys can be references to it."""
    from proxy.settings import environment

    if env_file is not None and not env_file.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(env_file))
    os.environ.update(environment(os.environ, env_file or Path(".env")))


def _serve() -> int:
    from contextlib import closing

    from proxy.settings import load_settings

    settings = load_settings(
        os.environ
    )  # before imports that take a second: wrong ones show at once
    from proxy import log, service

    admin_key = settings.admin_api_key.get_secret_value()
    for key in (settings.admin_api_key, settings.metrics_api_key, *settings.proxy_api_keys):
        if key is not None:
            log.register_secret(key.get_secret_value())
    if settings.admin_key_generated:
        # Not through the log, which would mask it.
        print(f"ADMIN_API_KEY is not set; for this run it is {admin_key}", file=sys.stderr)
    with closing(log.configure(settings.log_level, settings.log_format, settings.log_dir)):
        return service.run(settings)


# -- check -------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    from actors.store import ConfigStore
    from proxy.upstream.environment import unusable_variables

    for warning in unusable_variables():
        print(warning, file=sys.stderr)
    path: Path = options.config or _checked_settings().instance_config_file
    if options.config is None and not path.exists():
        path.resolve().parent.stat()  # the start needs the folder
        print(f"{path} does not exist: the service starts without instances.")
        return 0
    path.stat()  # a file that was named has to be there
    configs, problems = ConfigStore(path).inspect()
    for place, reason in problems:
        print(f"{path}: {place}: {reason}")
    if problems:
        print(f"{path} has {_count(len(problems), 'problem')}; the service would not start.")
        return 1
    for line in _table(list(configs.values())):
        print(line)
    print(f"{path} is valid: {_count(len(configs), 'instance')}.")
    return 0


def _checked_settings() -> Settings:
    """The settings; a certificate that they name can be used, and the vocabularies are whole.

    Errors: `SettingsError`, `CertificateError`, `BrokenVocabulary`.
    """
    from proxy.settings import load_settings
    from proxy.tokens import vocabulary

    settings = load_settings(os.environ)
    vocabulary.verify()
    if settings.tls_cert_file is not None:
        from proxy.service import certificate_files

        if files := certificate_files(settings):
            files.context()
            if warning := files.warning():
                print(warning, file=sys.stderr)
    return settings


def _table(configs: list[InstanceConfig]) -> Iterator[str]:
    """The instances, a line each, in columns."""
    rows = [("NAME", "PROVIDER", "PRIORITY", "MAX_TPM", "MODELS")]
    rows += [
        (
            config.name,
            config.provider_type,
            str(config.priority),
            str(config.max_tpm),
            _models(config) + ("" if config.enabled else "  (disabled)"),
        )
        for config in configs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if configs:
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(cells).rstrip()


def _models(config: InstanceConfig) -> str:
    if config.models():
        return ", ".join(config.models())
    if config.provider_type == "generic":
        return "any"
    return "none: name them in supported_models or model_deployments"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# -- failures to start -------------------------------------------------------------------------


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _failure_to_start(error: BaseException) -> str | None:
    """What an operator has to know and do; None for what is nobody's mistake but ours."""
    if isinstance(error, ModuleNotFoundError) and _is_foreign(error.name or "proxy"):
        return f"{error.name} is not installed for {sys.executable}; start with ./scripts/run"
    from actors.errors import BrokenFile, FileLocked
    from proxy.server.certificate import CertificateError
    from proxy.server.listen import ListenFailed
    from proxy.settings import SettingsError
    from proxy.tokens.vocabulary import BrokenVocabulary

    known = BrokenFile | FileLocked | CertificateError | ListenFailed | SettingsError
    if isinstance(error, known | BrokenVocabulary):
        return str(error)
    if not isinstance(error, OSError):
        return None
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, socket.gaierror) or error.errno in _ABOUT_AN_ADDRESS:
        return f"cannot listen: {error.strerror}; check HOST and PORT"
    return None


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in ("actors", "proxy")
