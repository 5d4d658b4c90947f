"""The bytes between the service and the process that encodes texts, cut anywhere."""

import io
import subprocess
import sys
import textwrap
from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_bodies import TEXT

from proxy.tokens import encoder
from proxy.tokens.vocabulary import encoded_length

NAMES = st.sampled_from(["o200k_base", "cl100k_base"])
REQUESTS = st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=4), NAMES), max_size=3)


class Trickle(io.RawIOBase):
    """Gives `content` in pieces of the given sizes, and then what is left byte by byte."""

    def __init__(self, content, sizes):
        self._content = content
        self._sizes = chain(sizes, repeat(1))

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self._content[: min(len(buffer), next(self._sizes))]
        self._content = self._content[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


@given(requests=REQUESTS, sizes=st.lists(st.integers(1, 5000)))
def test_each_request_is_answered_however_its_bytes_arrive(requests, sizes):
    sent = b"".join(encoder.request(texts, name) for texts, name in requests)
    answers = io.BytesIO()
    encoder.serve(io.BufferedReader(Trickle(sent, sizes)), answers)
    expected = [encoded_length(texts, name) for texts, name in requests]
    assert answers.getvalue() == b"".join(map(encoder.ANSWER.pack, expected))


@pytest.mark.parametrize("missing", [1, 4, 6, 8])
def test_the_end_of_input_in_the_middle_of_a_request_is_the_end(missing):
    answers = io.BytesIO()
    encoder.serve(io.BytesIO(encoder.request(["abc"], "o200k_base")[:-missing]), answers)
    assert answers.getvalue() == b""


@pytest.mark.parametrize("left", [b"", encoder.request(["abc"], "o200k_base")[:-1]])
def test_the_process_ends_in_silence_with_its_input(left):
    done = subprocess.run(
        [sys.executable, "-m", "proxy.tokens.encoder"],
        input=left,
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_process_loads_little():
    program = """
        import sys, proxy.tokens.encoder
        print(*{"trio", "pydantic", "httpx", "asyncio", "ssl"} & set(sys.modules))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
