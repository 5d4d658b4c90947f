"""One simulated Azure OpenAI resource, free of any transport.

A call is decided at once, in `Resource.answer`: synchronous, deterministic given the seed and the
order of the calls. What takes time is in the `Answer`, and `Playback` plays it on the trio clock.
"""

from __future__ import annotations

import hmac
import random
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from actors.clock import WallClock, wall_now
from proxy.simulator import (
    audio,
    catalogue,
    chat,
    completions,
    embeddings,
    fields,
    images,
    moderations,
)
from proxy.simulator.access import Access
from proxy.simulator.call import Answer, ApiError, Call, json_answer
from proxy.simulator.faults import Faults, distort, instead
from proxy.simulator.files import Files
from proxy.simulator.inference import Inference, Reading, new_id, unknown_model
from proxy.simulator.responses import Responses
from proxy.simulator.run import Operation, Request
from proxy.simulator.surface import Address, locate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.exchange.ports import Headers
    from proxy.simulator.deployment import Deployment
    from proxy.simulator.fields import Body
    from proxy.simulator.limiter import Limiter

DEFAULT_KEY = "simulated-key"
SIMULATED_EPOCH = WallClock(1_800_000_000.0)
"""A wall clock that is the same in every run that starts its trio clock at 0."""

_MOST_CUSTOM_HEADERS = 10

_OPERATIONS = {
    "chat/completions": Operation(
        "ChatCompletions_Create", "chatCompletion", chat.read, chat.whole, chat.events
    ),
    "completions": Operation(
        "Completions_Create", "completion", completions.read, completions.whole, completions.events
    ),
    "embeddings": Operation("Embeddings_Create", "embeddings", embeddings.read, embeddings.whole),
    "images/generations": Operation(
        "ImageGenerations_Create", "imageGeneration", images.read_generation, images.whole
    ),
    "images/edits": Operation("ImageEdits_Create", "imageEdit", images.read_edit, images.whole),
    "audio/speech": Operation("Audio_Speech", "audioSpeech", audio.read_speech, audio.speech),
    "audio/transcriptions": Operation(
        "Audio_Transcriptions", "audioTranscription", audio.read_transcription, audio.transcription
    ),
    "audio/translations": Operation(
        "Audio_Translations", "audioTranslation", audio.read_transcription, audio.transcription
    ),
    "moderations": Operation(
        "Moderations_Create", "moderation", moderations.read, moderations.whole
    ),
}


class Resource:
    """A resource with its deployments, faults, and everything that it remembers."""

    def __init__(
        self,
        name: str,
        deployments: Iterable[Deployment],
        *,
        region: str = "East US",
        api_keys: Iterable[str] = (DEFAULT_KEY,),
        entra_tokens: Iterable[str] = (),
        seed: int = 0,
        reading: Reading = Reading(),
        gateway_s: float = 0.0,
        wall: WallClock | None = SIMULATED_EPOCH,
    ) -> None:
        """`gateway_s`: what every answer takes at the least. `wall`: None for the real time."""
        self.name = name
        self.region = region
        self.deployments = {deployment.name: deployment for deployment in deployments}
        self.statuses: Counter[int] = Counter()
        self._rng = random.Random(f"{seed}/{name}")  # noqa: S311 - a simulation, repeatable
        self.faults = Faults(self._rng)
        self._access = Access(api_keys, entra_tokens)
        self._reading = reading
        self._gateway_s = gateway_s
        self._wall = wall
        self._began_at = 0.0
        self._inference: Inference | None = None
        self._files = Files(partial(new_id, self._rng))
        self._responses = Responses(hmac.digest(b"sealing", f"{seed}/{name}".encode(), "sha256"))
        self._operations = {
            **_OPERATIONS,
            "responses": Operation(
                "Responses_Create",
                "responses",
                self._responses.read,
                self._responses.whole,
                self._responses.events,
            ),
        }

    def start(self, now: float) -> Inference:
        """From the first `now` on the schedules of limits and faults run; a call does it too."""
        if self._inference is None:
            self._began_at = now
            self._inference = Inference(
                self.deployments,
                region=self.region,
                reading=self._reading,
                rng=self._rng,
                wall=self._wall or WallClock(wall_now() - now),
                origin_s=now,
            )
        return self._inference

    def limiter(self, deployment: str) -> Limiter:
        """The counters of a deployment. Errors: KeyError for an unknown name."""
        assert self._inference is not None, "start the resource first"
        return self._inference.limiters[deployment]

    def answer(self, call: Call, now: float) -> Answer:
        """Decides what is answered to a call that arrives at `now`. Never blocks."""
        inference = self.start(now)
        address = locate(call.path, call.query)
        headers = dict(call.headers)
        try:
            answer = self._decide(call, address, headers, inference, now)
        except ApiError as error:
            answer = error.answer()
        if not answer.refused:
            answer.headers += self._identity(headers, azure=address is None or address.azure)
            answer.after_s += self._gateway_s
            if isinstance(answer.body, bytes):
                answer.headers.append((b"content-length", b"%d" % len(answer.body)))
        self.statuses[answer.status] += 1
        return answer

    def _decide(
        self,
        call: Call,
        address: Address | None,
        headers: dict[bytes, bytes],
        inference: Inference,
        now: float,
    ) -> Answer:
        self._access.authorize(headers, address.dialect if address is not None else "v1")
        if sum(map(_is_custom, headers)) > _MOST_CUSTOM_HEADERS:
            raise catalogue.too_many_headers()
        if address is None:
            raise catalogue.resource_not_found()
        body: Body = {}
        if call.method == "POST" and call.body:
            body = fields.read_body(headers.get(b"content-type", b""), call.body)
        operation = self._operations.get(address.path) if call.method == "POST" else None
        name = address.deployment
        if operation is not None and name is None:
            name = fields.required_text(body, "model")
        fault = self.faults.strike(name, now - self._began_at)
        if operation is not None:
            assert name is not None
            spill_to = headers.get(b"x-ms-spillover-deployment", b"").decode("latin-1")
            return inference.answer(Request(operation, address, body, now), name, spill_to, fault)
        if fault is not None and (replaced := instead(fault)) is not None:
            return replaced
        answer = self._look_up(call, address, body, now, int(inference.wall.epoch(now)))
        return answer if fault is None else distort(answer, fault)

    def _look_up(
        self, call: Call, address: Address, body: Body, now: float, created: int
    ) -> Answer:
        """Everything that is no inference: what this resource has and keeps."""
        parts = address.path.split("/")
        rest = parts[1:]
        match parts[0]:
            case "responses" if rest:
                return self._responses.look_up(call.method, rest, call.query, now)
            case "files":
                return self._files.answer_files(call.method, rest, call.query, body, created)
            case "batches":
                return self._files.answer_batches(call.method, rest, call.query, body, now, created)
            case "models" if call.method == "GET":
                return self._models("/".join(rest), created, address)
            case _:
                raise catalogue.resource_not_found()

    def _models(self, wanted: str, created: int, address: Address) -> Answer:
        documents = {
            name: {"id": name, "object": "model", "created": created, "owned_by": "simulator"}
            for name in self.deployments
        }
        if not wanted:
            return json_answer({"object": "list", "data": list(documents.values())})
        if wanted not in documents:
            raise unknown_model(wanted, address)
        return json_answer(documents[wanted])

    def _identity(self, headers: dict[bytes, bytes], *, azure: bool) -> Headers:
        request_id = new_id(self._rng).encode()
        if not azure:
            return [(b"x-request-id", request_id)]
        own: Headers = [
            (b"apim-request-id", request_id),
            (b"x-request-id", request_id),
            (b"x-ms-region", self.region.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"strict-transport-security", b"max-age=31536000; includeSubDomains; preload"),
        ]
        client_id = headers.get(b"x-ms-client-request-id")
        if client_id is not None:
            own.append((b"x-ms-client-request-id", client_id))
        return own


def _is_custom(header: bytes) -> bool:
    """Whether it counts against the service's limit on headers of the caller's own invention."""
    return header.startswith(b"x-") and not header.startswith((b"x-stainless-", b"x-ms-"))
