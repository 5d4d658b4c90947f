"""The start-up of a stream: events that come before the first real output.

Azure can answer 200, send these, and then fail inside the stream. As long as nothing else has
come, nothing has been shown to the client and another instance may still serve the request.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from proxy.exchange.sse import event_document, event_error, split_events

Stage: TypeAlias = Literal["preamble", "output", "error"]

MAX_HELD_BYTES: Final = 256 * 1024
"""More start-up than this is no start-up; an Azure preamble has one to three kilobytes."""
MAX_HELD_S: Final = 15.0
"""Of the first event. Failures inside a stream come within a few seconds; a client that has waited
this long should see that its stream has begun, and the comments that keep it alive."""

_STARTING: Final = ("response.created", "response.in_progress", "response.queued")


def furthest(events: bytes) -> tuple[Stage, int]:
    """What a run of whole events reaches: of an output and an error, that which comes first; and
    how many bytes of start-up come before it."""
    start_up_bytes = 0
    for event in split_events(events):
        reached = stage(event)
        if reached != "preamble":
            return reached, start_up_bytes
        start_up_bytes += len(event)
    return "preamble", start_up_bytes


def stage(event: bytes) -> Stage:
    """What one whole event is. Anything that is not known to be start-up counts as output."""
    document = event_document(event)
    if event_error(event, document) is not None:
        return "error"
    if document is None:
        return "output" if b"data:" in event else "preamble"  # comments, empty events
    if document.get("type") in _STARTING:
        return "preamble"
    choices = document.get("choices")
    if isinstance(choices, list) and document.get("usage") is None:
        return "output" if any(_has_output(choice) for choice in choices) else "preamble"
    return "output"


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
