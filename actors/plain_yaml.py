"""YAML that says what JSON could say, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml

from actors.problems import shown

if TYPE_CHECKING:
    from collections.abc import Hashable

_PLAIN_TAGS: Final = tuple(
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")
)


class PlainLoader(yaml.SafeLoader):
    """No aliases (a few lines of them can stand for gigabytes), no repeated keys, no tags beyond
    the plain ones, and keys as they are written."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
            _refuse("aliases are not read; write the value out", alias.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _refuse("a key must be text", key.start_mark)
            if key.value in mapping:
                _refuse(f"{shown(key.value)} is written more than once", key.start_mark)
            mapping[key.value] = self.construct_object(value, deep=deep)
        return mapping


def _refuse(reason: str, mark: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=reason, problem_mark=mark)


PlainLoader.yaml_constructors = {
    None: yaml.SafeLoader.yaml_constructors[None],
    **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _PLAIN_TAGS},
}
PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _PLAIN_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
