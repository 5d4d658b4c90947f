"""Pictures, speech, transcripts, moderations, files and batches."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest
from simulator_calls import deployment, document, error, get, headers_of, post, resource, v1

from proxy.simulator import files

if TYPE_CHECKING:
    from proxy.simulator.call import Answer
    from proxy.simulator.resource import Resource

BOUNDARY = "the-boundary"


def form(**parts: Any) -> bytes:
    """A multipart body; a value that is a pair is a file with a name."""
    body = b""
    for name, value in parts.items():
        head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"'
        if isinstance(value, tuple):
            head += f'; filename="{value[0]}"\r\ncontent-type: application/octet-stream'
        content = value[1] if isinstance(value, tuple) else value.encode()
        body += head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def send_form(to: Resource, path: str, *, now: float = 0.0, **parts: Any) -> Answer:
    kind = f'multipart/form-data; boundary="{BOUNDARY}"'.encode()
    return post(to, f"/openai/v1/{path}", form(**parts), query=b"", content_type=kind, now=now)


def test_images_are_real_pictures() -> None:
    sim = resource(deployment("gpt-image-1"))
    body = document(v1(sim, "images/generations", {"model": "gpt-image-1", "prompt": "x", "n": 2}))
    assert len(body["data"]) == 2
    assert b64decode(body["data"][0]["b64_json"]).startswith(b"\x89PNG")
    asked = {"model": "gpt-image-1", "prompt": "x", "response_format": "url"}
    assert "url" in document(v1(sim, "images/generations", asked))["data"][0]


def test_image_edits_take_a_form() -> None:
    sim = resource(deployment("gpt-image-1"))
    parts = {"model": "gpt-image-1", "prompt": "make it red", "n": "3"}
    answer = send_form(sim, "images/edits", image=("a.png", b"\x89PNG\r\n\x00"), **parts)
    assert len(document(answer)["data"]) == 3
    assert document(answer)["usage"]["input_tokens_details"]["image_tokens"] == 256
    assert error(send_form(sim, "images/edits", **parts))["param"] == "image"


@pytest.mark.parametrize(("kind", "content_type"), [(None, "audio/mpeg"), ("wav", "audio/wav")])
def test_speech_is_binary_and_as_long_as_its_text(kind: str | None, content_type: str) -> None:
    sim = resource(deployment("tts-1"))
    asked = {"model": "tts-1", "voice": "alloy", "input": "12345"}
    answer = v1(sim, "audio/speech", asked | ({"response_format": kind} if kind else {}))
    assert headers_of(answer)["content-type"] == content_type
    assert answer.body == bytes(5 * 960)


@pytest.mark.parametrize("operation", ["audio/transcriptions", "audio/translations"])
def test_transcripts_in_every_form(operation: str) -> None:
    sim = resource(deployment("whisper-1"))
    sound = ("a.wav", bytes(16_000))
    plain = document(send_form(sim, operation, model="whisper-1", file=sound))
    assert plain["usage"]["input_tokens"] == 11
    assert len(plain["text"].split()) == plain["usage"]["output_tokens"]
    for kind, begins in (("text", b"a "), ("srt", b"1\n"), ("vtt", b"WEBVTT")):
        answer = send_form(sim, operation, model="whisper-1", file=sound, response_format=kind)
        assert isinstance(answer.body, bytes)
        assert answer.body.startswith(begins)
    verbose = send_form(
        sim, operation, model="whisper-1", file=sound, response_format="verbose_json"
    )
    assert document(verbose)["duration"] == 1.0


def test_forms_that_are_refused() -> None:
    sim = resource(deployment("whisper-1"))
    assert error(send_form(sim, "audio/transcriptions", model="whisper-1"))["param"] == "file"
    broken = post(
        sim,
        "/openai/v1/audio/transcriptions",
        b"no form at all",
        query=b"",
        content_type=b"multipart/form-data; boundary=x",
    )
    assert broken.status == 400
    unmarked = post(
        sim,
        "/openai/v1/audio/transcriptions",
        b"",
        query=b"",
        content_type=b"multipart/form-data",
    )
    assert unmarked.status == 400


def test_moderations_flag_nothing() -> None:
    sim = resource(deployment("omni-moderation-latest"))
    asked = {"model": "omni-moderation-latest", "input": ["one", "two"]}
    body = document(v1(sim, "moderations", asked))
    assert [result["flagged"] for result in body["results"]] == [False, False]


def upload(to: Resource, content: bytes = b"{}\n", purpose: str = "batch") -> str:
    answer = send_form(to, "files", purpose=purpose, file=("in.jsonl", content))
    return str(document(answer)["id"])


def test_files_live_where_they_were_uploaded() -> None:
    here, elsewhere = resource(name="here"), resource(name="elsewhere")
    made = upload(here, b"\x00\xff\r\n")
    assert document(get(here, f"/openai/files/{made}"))["bytes"] == 4
    assert get(here, f"/openai/files/{made}/content").body == b"\x00\xff\r\n"
    other = upload(here, purpose="assistants")
    listed = document(get(here, "/openai/v1/files", query=b"purpose=batch"))
    assert [entry["id"] for entry in listed["data"]] == [made]
    assert [entry["id"] for entry in document(get(here, "/openai/v1/files"))["data"]] == [
        other,
        made,
    ]
    assert get(elsewhere, f"/openai/files/{made}").status == 404
    assert document(v1(here, f"files/{made}", method="DELETE"))["deleted"] is True
    assert get(here, f"/openai/files/{made}").status == 404


def test_batches_take_their_time_and_give_a_result_per_line() -> None:
    sim = resource()
    lines = b'{"custom_id": "a"}\n{"custom_id": "b"}\nnonsense\n'
    asked = {"input_file_id": upload(sim, lines), "endpoint": "/chat/completions"}
    made = document(v1(sim, "batches", asked))
    assert made["status"] == "in_progress"
    path = f"/openai/v1/batches/{made['id']}"
    done = document(get(sim, path, now=11))
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    output = get(sim, f"/openai/v1/files/{done['output_file_id']}/content", now=12).body
    assert isinstance(output, bytes)
    assert [json.loads(line)["custom_id"] for line in output.splitlines()] == ["a", "b", None]
    assert document(get(sim, path, now=12)) == done
    assert [entry["id"] for entry in document(get(sim, "/openai/v1/batches"))["data"]] == [
        made["id"]
    ]


def test_a_batch_can_be_cancelled_while_it_runs() -> None:
    sim = resource()
    asked = {"input_file_id": upload(sim), "endpoint": "/chat/completions"}
    made = document(v1(sim, "batches", asked))["id"]
    assert document(v1(sim, f"batches/{made}/cancel", now=5))["status"] == "cancelled"
    assert document(get(sim, f"/openai/v1/batches/{made}", now=50))["status"] == "cancelled"


def test_what_files_and_batches_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = resource()
    assert v1(sim, "batches", {"input_file_id": "file-0", "endpoint": "/x"}).status == 404
    assert get(sim, "/openai/v1/batches/batch_0").status == 404
    assert error(send_form(sim, "files", file=("a", b"")))["param"] == "purpose"
    assert v1(sim, "files", method="DELETE").status == 404
    monkeypatch.setattr(files, "MOST_STORED_BYTES", 10)
    assert send_form(sim, "files", purpose="batch", file=("a", bytes(11))).status == 400
