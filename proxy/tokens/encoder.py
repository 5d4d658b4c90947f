"""The process that encodes texts, and the bytes that go to it and come back.

`python -m proxy.tokens.encoder` reads requests on standard input until its end and answers each on
standard output. It has its own interpreter, so nothing in it can hold up the event loop of the
service. It imports little, because all that it imports is there a second time.

A request is a head (the encoding's number, the length of what follows) and texts in UTF-8; an
answer is how many tokens they have together.
"""

from __future__ import annotations

import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from proxy.tokens.vocabulary import EncodingName, encoded_length

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

ANSWER: Final = struct.Struct("!I")

_HEAD: Final = struct.Struct("!BI")
_NAMES: Final[tuple[EncodingName, ...]] = get_args(EncodingName)
_BETWEEN_TEXTS: Final = b"\xff"
"""No UTF-8 has it."""
_SURROGATES: Final = "surrogatepass"
"""JSON can hold half a surrogate pair; tiktoken is to see it."""


def request(texts: Iterable[str], name: EncodingName) -> bytes:
    """`texts`, at least one, as `serve` reads them."""
    content = _BETWEEN_TEXTS.join([text.encode("utf-8", _SURROGATES) for text in texts])
    return _HEAD.pack(_NAMES.index(name), len(content)) + content


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers until `requests` end, be it in the middle of one. Blocks.

    Errors: `vocabulary.BrokenVocabulary`, `BrokenPipeError`.
    """
    while len(head := requests.read(_HEAD.size)) == _HEAD.size:
        number, length = _HEAD.unpack(head)
        content = requests.read(length)
        if len(content) < length:
            return
        texts = [piece.decode("utf-8", _SURROGATES) for piece in content.split(_BETWEEN_TEXTS)]
        answers.write(ANSWER.pack(encoded_length(texts, _NAMES[number])))
        answers.flush()


def main() -> None:
    # What stops the service may be sent to this process too, by Ctrl-C or a service manager. It
    # is needed until the last request is through, and ends with its standard input.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Linux: when memory is short, this process is given up before the service.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
