"""Speech from text (silence of a fitting length), and text from speech."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import to_json

from proxy.simulator import catalogue, fields
from proxy.simulator.run import Ask, Run, Whole
from proxy.simulator.text import answer_text

if TYPE_CHECKING:
    from proxy.simulator.deployment import Deployment
    from proxy.simulator.fields import Body
    from proxy.simulator.surface import Address

_SPEECH_TYPES = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/opus",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}
_SPEECH_BYTES_PER_CHARACTER = 960
_MOST_CHARACTERS = 4096
_BYTES_PER_SECOND = 16_000
_TOKENS_PER_SECOND = 10
_TRANSCRIPT_FORMATS = ("json", "verbose_json", "text", "srt", "vtt")


def read_speech(body: Body, address: Address, deployment: Deployment) -> Ask:
    """Errors: `ApiError` for anything that the service refuses about the request itself."""
    del address, deployment
    text = fields.required_text(body, "input")
    fields.required_text(body, "voice")
    if len(text) > _MOST_CHARACTERS:
        raise catalogue.wrong_value("input", f"at most {_MOST_CHARACTERS} characters")
    if (fields.text(body, "response_format") or "mp3") not in _SPEECH_TYPES:
        raise catalogue.wrong_value("response_format", f"one of {', '.join(_SPEECH_TYPES)}")
    return Ask(body, text, 0, "input", generates=False)


def speech(ask: Ask, run: Run) -> Whole:
    """Binary, as long as the text is."""
    del run
    kind = _SPEECH_TYPES[ask.body.get("response_format") or "mp3"]
    silence = bytes(len(ask.text) * _SPEECH_BYTES_PER_CHARACTER)
    return Whole(silence, (b"content-type", kind))


def read_transcription(body: Body, address: Address, deployment: Deployment) -> Ask:
    """Errors: `ApiError` for anything that the service refuses about the request itself."""
    del address, deployment
    content = fields.upload(body, "file").content
    if (fields.text(body, "response_format") or "json") not in _TRANSCRIPT_FORMATS:
        raise catalogue.wrong_value("response_format", f"one of {', '.join(_TRANSCRIPT_FORMATS)}")
    prompt = fields.text(body, "prompt") or ""
    return Ask(body, prompt, _audio_tokens(content), "file")


def transcription(ask: Ask, run: Run) -> Whole:
    """The text in the form that was asked for."""
    text = answer_text(run.answer_tokens)
    seconds = len(fields.upload(ask.body, "file").content) / _BYTES_PER_SECOND
    plain = (b"content-type", b"text/plain; charset=utf-8")
    match ask.body.get("response_format"):
        case "text":
            return Whole(text.encode() + b"\n", plain)
        case "srt":
            return Whole(f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n".encode(), plain)
        case "vtt":
            return Whole(f"WEBVTT\n\n00:00.000 --> 00:01.000\n{text}\n\n".encode(), plain)
        case "verbose_json":
            detail = {"task": "transcribe", "language": "english", "duration": seconds}
            return Whole(to_json({**detail, "text": text, "segments": [], "words": []}))
        case _:
            used = {
                "type": "tokens",
                "input_tokens": run.input_tokens,
                "output_tokens": run.answer_tokens,
                "total_tokens": run.input_tokens + run.answer_tokens,
            }
            return Whole(to_json({"text": text, "usage": used}))


def _audio_tokens(content: bytes) -> int:
    return len(content) * _TOKENS_PER_SECOND // _BYTES_PER_SECOND + 1
