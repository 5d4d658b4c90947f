"""What is in a configuration or state file, and what is wrong with it, without any key."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["config", "state"]
Records: TypeAlias = dict[str, dict[str, Any]]


def kind_of(path: str) -> Kind:
    """By its name: a file that is called a state is one."""
    return "state" if "state" in os.path.basename(path).lower() else "config"


@dataclass(frozen=True, slots=True)
class Content:
    """`records`: by instance name, as they are written. `problems`: each with its place."""

    records: Records = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read(content: bytes, kind: Kind) -> Content:
    """The records in `content`; none if there is a problem.

    The project's own reader judges them. Without its environment only the shape is checked.
    """
    problems = [*_problems(content, kind)]
    return Content(problems=tuple(problems)) if problems else Content(json.loads(_text(content)))


def completed(records: Records, kind: Kind) -> Records:
    """`records`, free of problems, as the service reads them: what is left out has its default.

    Without the project's environment they stay as they are written.
    """
    if not fully_checked():
        return records
    from actors.models import InstanceConfig, InstanceState

    model = InstanceConfig if kind == "config" else InstanceState
    return {
        name: model.model_validate({"name": name, **record}).model_dump(mode="json")
        for name, record in records.items()
    }


def fully_checked() -> bool:
    """Whether the project's own reader is there to judge the records."""
    try:
        import actors.records  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def _text(content: bytes) -> str:
    return content.decode("utf-8-sig")


def _problems(content: bytes, kind: Kind) -> Iterator[str]:
    if not fully_checked():
        yield from _flaws_of_shape(content)
        return
    from actors.records import read_configs, read_states

    if kind == "config":
        # Keys refer to the service's environment, which is not this one.
        _, found = read_configs(content, EveryVariable())
    else:
        _, found = read_states(content)
    for place, reason in found:
        yield f"{place}: {reason}"


def _flaws_of_shape(content: bytes) -> Iterator[str]:
    try:
        document = json.loads(_text(content))
    except UnicodeDecodeError:
        yield "is not UTF-8 text"
    except json.JSONDecodeError as error:
        yield f"line {error.lineno}, column {error.colno}: {error.msg}"
    except RecursionError:
        yield "is nested too deeply"
    except ValueError:  # an integer of thousands of digits
        yield "holds a number that can't be read"
    else:
        if not isinstance(document, dict):
            yield "must be one JSON object keyed by instance name"
        elif not all(isinstance(record, dict) for record in document.values()):
            yield "every instance must be a JSON object"


class EveryVariable(Mapping[str, str]):
    """An environment in which whatever is asked for is set."""

    def __getitem__(self, name: str) -> str:
        return "set"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
