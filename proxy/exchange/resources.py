"""The addresses of what is kept upstream, one row each. A new one is a new row.

Paths and methods: the OpenAI API reference (responses, conversations, files, uploads, batches,
vector stores, assistants); Azure has the same below its own addresses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

Key: TypeAlias = str
"""`family/id`, such as `files/file-1`: also the path at which the thing can be asked for."""
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]{0,199}")
Method: TypeAlias = Literal["GET", "POST", "DELETE"]
Made: TypeAlias = tuple[tuple[str, str], ...]

_FILE: Final[Made] = (("id", "files"),)
_UPLOAD: Final[Made] = (("id", "uploads"), ("file.id", "files"))
_BATCH: Final[Made] = (
    ("id", "batches"), ("output_file_id", "files"), ("error_file_id", "files"),
)  # fmt: skip
_STORE: Final[Made] = (("id", "vector_stores"),)
_ASSISTANT: Final[Made] = (("id", "assistants"),)
_THREAD: Final[Made] = (("id", "threads"),)
_RESPONSE: Final[Made] = (("id", "responses"),)
_CONVERSATION: Final[Made] = (("id", "conversations"),)


@dataclass(frozen=True, slots=True)
class Resource:
    """`path`: below the address; `{…}` stands for an id. What comes first is the family.

    `makes`: fields of its answers that hold ids, and their families. `form`: it is posted as a
    form, else as JSON. `stream_ending`: see `proxy.exchange.sse.Ending`.
    """

    path: str
    methods: tuple[Method, ...]
    makes: Made = ()
    form: bool = False
    stream_ending: Literal["response", "close"] = "close"

    @property
    def family(self) -> str:
        return self.path.partition("/")[0]

    @property
    def listed(self) -> bool:
        """Whether GET lists what all instances have."""
        return "GET" in self.methods and "/" not in self.path

    @property
    def names_one(self) -> bool:
        """Whether it is one thing of its family, and nothing below that: DELETE ends its life."""
        return self.path.count("/") == 1 and self.path.endswith("}")


RESOURCES: Final = (
    Resource("responses/{response_id}", ("GET", "DELETE"), _RESPONSE, stream_ending="response"),
    Resource("responses/{response_id}/cancel", ("POST",), _RESPONSE),
    Resource("responses/{response_id}/input_items", ("GET",)),
    Resource("conversations", ("POST",), _CONVERSATION),
    Resource("conversations/{conversation_id}", ("GET", "POST", "DELETE"), _CONVERSATION),
    Resource("conversations/{conversation_id}/items", ("GET", "POST")),
    Resource("conversations/{conversation_id}/items/{item_id}", ("GET", "DELETE")),
    Resource("files", ("GET", "POST"), _FILE, form=True),
    Resource("files/{file_id}", ("GET", "DELETE"), _FILE),
    Resource("files/{file_id}/content", ("GET",)),
    Resource("uploads", ("POST",), _UPLOAD),
    Resource("uploads/{upload_id}/parts", ("POST",), form=True),
    Resource("uploads/{upload_id}/complete", ("POST",), _UPLOAD),
    Resource("uploads/{upload_id}/cancel", ("POST",)),
    Resource("batches", ("GET", "POST"), _BATCH),
    Resource("batches/{batch_id}", ("GET",), _BATCH),
    Resource("batches/{batch_id}/cancel", ("POST",), _BATCH),
    Resource("vector_stores", ("GET", "POST"), _STORE),
    Resource("vector_stores/{vector_store_id}", ("GET", "POST", "DELETE"), _STORE),
    Resource("vector_stores/{vector_store_id}/search", ("POST",)),
    Resource("vector_stores/{vector_store_id}/files", ("GET", "POST")),
    Resource("vector_stores/{vector_store_id}/files/{file_id}", ("GET", "POST", "DELETE")),
    Resource("vector_stores/{vector_store_id}/files/{file_id}/content", ("GET",)),
    Resource("vector_stores/{vector_store_id}/file_batches", ("POST",)),
    Resource("vector_stores/{vector_store_id}/file_batches/{batch_id}", ("GET",)),
    Resource("vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel", ("POST",)),
    Resource("vector_stores/{vector_store_id}/file_batches/{batch_id}/files", ("GET",)),
    Resource("assistants", ("GET", "POST"), _ASSISTANT),
    Resource("assistants/{assistant_id}", ("GET", "POST", "DELETE"), _ASSISTANT),
    Resource("threads", ("POST",), _THREAD),
    Resource("threads/runs", ("POST",), (("thread_id", "threads"),)),
    Resource("threads/{thread_id}", ("GET", "POST", "DELETE"), _THREAD),
    Resource("threads/{thread_id}/messages", ("GET", "POST")),
    Resource("threads/{thread_id}/messages/{message_id}", ("GET", "POST", "DELETE")),
    Resource("threads/{thread_id}/runs", ("GET", "POST")),
    Resource("threads/{thread_id}/runs/{run_id}", ("GET", "POST")),
    Resource("threads/{thread_id}/runs/{run_id}/cancel", ("POST",)),
    Resource("threads/{thread_id}/runs/{run_id}/submit_tool_outputs", ("POST",)),
    Resource("threads/{thread_id}/runs/{run_id}/steps", ("GET",)),
    Resource("threads/{thread_id}/runs/{run_id}/steps/{step_id}", ("GET",)),
)


def is_id(text: str) -> bool:
    """Whether `text` could be an id: such a one is harmless in a path, a log and a file."""
    return ID.fullmatch(text) is not None


class Place(NamedTuple):
    """A resource with its ids: where a request goes below the address of any instance."""

    resource: Resource
    path: str
    key: Key | None
    """What the path names first; None if it names nothing that exists already."""


_ROWS: Final = [(resource, tuple(resource.path.split("/"))) for resource in RESOURCES]
_FAMILIES: Final = {
    family: [(resource, steps) for resource, steps in _ROWS if steps[0] == family]
    for family in {steps[0] for _, steps in _ROWS}
}


def locate(path: str) -> Place | None:
    """The place of a percent-decoded path below an address; None if there is none.

    A segment stands for an id only if it could be one, so no path leads out of its family.
    """
    steps = path.split("/")
    for resource, wanted in _FAMILIES.get(steps[0], ()):
        if len(wanted) == len(steps) and all(map(_fits, wanted, steps)):
            named = len(wanted) > 1 and wanted[1].startswith("{")
            return Place(resource, path, f"{steps[0]}/{steps[1]}" if named else None)
    return None


def _fits(wanted: str, step: str) -> bool:
    return is_id(step) if wanted.startswith("{") else wanted == step
