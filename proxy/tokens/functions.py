"""What function definitions cost in input tokens.

The numbers are those of the OpenAI cookbook, "How to count tokens with tiktoken", section 7: an
approximation, which the cookbook shows to be exact for its examples. It stops at the first level
of properties; nested objects and array items are shown to the model too, and are counted here by
the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.tokens.vocabulary import encoding_name

if TYPE_CHECKING:
    from proxy.tokens.prompt import Prompt

_FUNCTION_TOKENS = {"cl100k_base": 10, "o200k_base": 7}
"""By encoding, which tells GPT-3.5 and GPT-4 from GPT-4o and later."""
_PROPERTIES_TOKENS = 3
_PROPERTY_TOKENS = 3
_ENUM_TOKENS = -3
_ENUM_MEMBER_TOKENS = 3
_CLOSING_TOKENS = 12

_MAX_DEPTH = 10
"""Levels of nesting that structured outputs allow; deeper ones are not looked at."""


def add_functions(prompt: Prompt, tools: Any) -> None:
    """Adds `tools` of either API, or the older `functions`, to `prompt`. Never raises.

    The tools that a server has listed, and the schema of an answer, may stand among them: no rule
    for these is published, and they are taken for functions.
    """
    if not tools or not isinstance(tools, list) or not prompt.affords(len(tools)):
        return
    opening_tokens = _FUNCTION_TOKENS[encoding_name(prompt.model)]
    found = False
    for tool in tools:
        if isinstance(tool, dict):
            function = tool.get("function", tool)  # Chat nests it, Responses doesn't
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                found = True
                prompt.fixed_tokens += opening_tokens
                prompt.texts.append(f"{function['name']}:{_description(function)}")
                listed = function.get("input_schema") or function.get("schema")
                _add_properties(prompt, function.get("parameters") or listed, _MAX_DEPTH)
    if found:
        prompt.fixed_tokens += _CLOSING_TOKENS


def _add_properties(prompt: Prompt, schema: Any, depth: int) -> None:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not properties or not isinstance(properties, dict) or not prompt.affords(len(properties)):
        return
    prompt.fixed_tokens += _PROPERTIES_TOKENS
    for name, property_ in properties.items():
        prompt.fixed_tokens += _PROPERTY_TOKENS
        if not isinstance(property_, dict):
            prompt.texts.append(name)
            continue
        type_ = property_.get("type")
        shown_type = type_ if isinstance(type_, str) else ""
        prompt.texts.append(f"{name}:{shown_type}:{_description(property_)}")
        _add_enum(prompt, property_.get("enum"))
        if depth > 1:
            _add_properties(prompt, property_, depth - 1)
            _add_properties(prompt, property_.get("items"), depth - 1)


def _add_enum(prompt: Prompt, members: Any) -> None:
    if members and isinstance(members, list) and prompt.affords(len(members)):
        prompt.fixed_tokens += _ENUM_TOKENS + _ENUM_MEMBER_TOKENS * len(members)
        prompt.texts.extend([member for member in members if isinstance(member, str)])


def _description(described: dict[str, Any]) -> str:
    description = described.get("description")
    return description.removesuffix(".") if isinstance(description, str) else ""
