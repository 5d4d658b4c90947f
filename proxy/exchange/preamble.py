"""The start-up of a stream: events that come before the first real output.

Azure can answer 200, send these, and then fail inside the stream. As long as nothing else has
come, nothing has been shown to the client and another instance may still serve the request.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from proxy.exchange.sse import event_document

Stage: TypeAlias = Literal["preamble", "output", "error"]

MAX_HELD_BYTES: Final = 256 * 1024
"""More start-up than this is no start-up; an Azure preamble has one to three kilobytes."""

_STARTING: Final = frozenset({"response.created", "response.in_progress", "response.queued"})


def stage(event: bytes) -> Stage:
    """What one whole event is. Anything that is not known to be start-up counts as output."""
    document = event_document(event)
    if document is None:
        return "output" if b"data:" in event else "preamble"  # comments, empty events
    if _is_error(document):
        return "error"
    if document.get("type") in _STARTING:
        return "preamble"
    choices = document.get("choices")
    if isinstance(choices, list) and document.get("usage") is None:
        return "output" if any(_has_output(choice) for choice in choices) else "preamble"
    return "output"


def _is_error(document: dict[str, Any]) -> bool:
    return isinstance(document.get("error"), dict) or document.get("type") in (
        "error",
        "response.failed",
    )


def _has_output(choice: object) -> bool:
    """Whether a streamed choice carries anything beyond its role."""
    if not isinstance(choice, dict) or choice.get("finish_reason") is not None:
        return True
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(
        value not in (None, "", [], {}) for name, value in delta.items() if name != "role"
    )
