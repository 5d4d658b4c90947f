"""The log: what a line looks like, what never gets into one, and that nobody waits for it."""

import json
import logging
import os
import resource
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import log
from proxy.log import LogWriter, Secrets, configure, json_line, register_secret, text_line

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _root_logger_as_before(monkeypatch):
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    monkeypatch.setattr(log, "_SECRETS", Secrets())
    for switch in ("logThreads", "logProcesses", "logMultiprocessing", "_srcfile"):
        monkeypatch.setattr(logging, switch, getattr(logging, switch))
    yield
    root.setLevel(level)
    assert root.handlers == handlers


def lines(capsys):
    return capsys.readouterr().err.splitlines()


# -- lines -------------------------------------------------------------------------------------


def test_a_text_line_is_key_and_value(capsys):
    with closing(configure("INFO", "text")):
        logging.getLogger("proxy.x").info(
            "request %s", "served", extra={"status": 200, "model": "gpt 4", "instance": None}
        )
    (line,) = lines(capsys)
    time, rest = line.split(" ", 1)
    assert time.startswith("time=20")
    assert time.endswith("Z")
    assert rest == (
        'level=INFO logger=proxy.x message="request served" status=200 model="gpt 4" instance=null'
    )


def test_a_json_line_is_one_object(capsys):
    with closing(configure("INFO", "json")):
        try:
            raise ValueError("bad\nvalue")
        except ValueError:
            logging.getLogger("proxy.x").exception(
                "it failed", extra={"n": 1, "path": Path("p"), "rate": float("nan")}
            )
    (line,) = lines(capsys)
    entry = json.loads(line)
    assert list(entry) == ["time", "level", "logger", "message", "n", "path", "rate", "exception"]
    assert (entry["level"], entry["message"], entry["n"]) == ("ERROR", "it failed", 1)
    assert (entry["path"], entry["rate"]) == ("p", "nan")
    assert entry["exception"].endswith("ValueError: bad\nvalue")


def test_the_level_decides_and_can_be_changed_while_running(capsys):
    with closing(configure("WARNING", "text")):
        logging.getLogger("proxy").info("not shown")
        logging.getLogger().setLevel("INFO")
        logging.getLogger("proxy").info("shown")
        logging.getLogger("httpx").info("HTTP Request: GET ...")
    (line,) = lines(capsys)
    assert "message=shown" in line


def test_no_value_can_make_a_line_or_a_field_of_its_own(capsys):
    forged = 'x\n2026 level=ERROR "quoted" \\ \x1b[31m\u2028\u202e\x85\r\x00'
    with closing(configure("INFO", "text")):
        try:
            raise ValueError(forged)
        except ValueError:
            logging.getLogger("proxy").warning(forged, exc_info=True, extra={"model": forged})
    first, *rest = lines(capsys)
    assert first.isprintable()
    assert 'message="x\\n2026 level=ERROR \\"quoted\\" \\\\ \\x1b[31m\\u2028\\u202e' in first
    assert rest
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.text(st.characters()), min_size=1), st.text())
def test_any_value_stays_in_its_line(fields, traceback):
    assert text_line(fields, None).isprintable()
    assert all(line.isprintable() for line in text_line(fields, traceback).split("\n"))
    assert json_line(dict(fields), None).isascii()
    assert json_line(dict(fields), None).isprintable()
    assert json.loads(json_line(dict(fields), None)) == fields


def test_a_record_that_cannot_be_formatted_is_reported_without_its_arguments(capsys):
    class Unprintable:
        def __str__(self):
            raise RuntimeError("secret-argument")

    with closing(configure("INFO", "text")) as writer:
        for message, argument in [("%s", Unprintable()), ("%d and %d", 1), ("after", None)]:
            arguments = () if argument is None else (argument,)
            record = logging.makeLogRecord({"msg": message, "args": arguments})
            writer.handle(record)
    first, second, third = lines(capsys)
    assert "could not be formatted" in first
    assert "template=%s" in first
    assert "could not be formatted" in second
    assert "message=after" in third
    assert "secret" not in first


# -- secrets -----------------------------------------------------------------------------------

SECRET = 'sk-"4/2\\+key='


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_secret_appears_nowhere_in_a_record(capsys, style):
    register_secret(SECRET)
    with closing(configure("INFO", style)):
        logger = logging.getLogger("proxy")
        try:
            raise ValueError(f"refused {SECRET}")
        except ValueError:
            logger.exception(
                f"key {SECRET} of %s and %r", SECRET, {"k": SECRET}, extra={"url": f"?k={SECRET}"}
            )
        logger.info("in a URL: %s", "https://h/?key=sk-%224%2F2%5C%2Bkey%3D&x")
    written = capsys.readouterr().err
    assert written.count("****") == 6
    assert not [part for part in ("sk-", "+key", "%2Bkey") if part in written.replace(" key ", "")]


def test_a_secret_is_masked_inside_longer_words_and_overlapping_ones_too():
    secrets = Secrets()
    for secret in ("abcd1234", "abcd1234efgh", "abc"):
        secrets.add(secret)
    assert secrets.masked("xabcd1234efghy abcd1234, abcd123 abc") == "x****y ****, abcd123 abc"


def test_the_secret_of_an_earlier_writer_stays_masked(capsys):
    for secret in ("first-secret", "second-secret"):
        register_secret(secret)
        with closing(configure("INFO", "text")):
            logging.getLogger("proxy").info("first-secret second-secret")
    assert 'message="**** second-secret"' in lines(capsys)[0]
    assert "first" not in capsys.readouterr().err


printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@settings(deadline=None)
@given(st.lists(printable.filter(lambda s: len(s) >= 4), max_size=4), st.lists(printable))
def test_masking_hides_every_secret_and_nothing_else(secret_texts, others):
    secrets = Secrets()
    for secret in secret_texts:
        secrets.add(secret)
    hidden = [s for s in secret_texts if "*" not in s]
    text = " ".join([*others, *secret_texts, *others])
    masked = secrets.masked(text)
    assert not [secret for secret in hidden if secret in masked]
    if not any(spelling in text for spelling in secrets._texts):
        assert masked == text


# -- the file ----------------------------------------------------------------------------------


def test_a_private_file_is_written_beside_standard_error(tmp_path, capsys):
    before = os.umask(0)
    try:
        with closing(configure("INFO", "text", tmp_path / "new" / "logs")):
            logging.getLogger("proxy").info("grüße")
    finally:
        os.umask(before)
    file = tmp_path / "new" / "logs" / "proxy.log"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == capsys.readouterr().err
    assert 'message="grüße"' in file.read_text()


def test_the_file_is_rotated_before_it_grows_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "FILE_BYTES", 400)
    monkeypatch.setattr(log, "FILES_KEPT", 2)
    for number in range(12):
        with closing(configure("INFO", "text", tmp_path)):
            logging.getLogger("proxy").info("line %d %s", number, "x" * 40)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["proxy.log", "proxy.log.1", "proxy.log.2"]
    assert all(path.stat().st_size <= 400 for path in tmp_path.iterdir())
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
    assert "line 11" in (tmp_path / "proxy.log").read_text()


def test_a_folder_that_cannot_be_made_is_an_error_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        configure("INFO", "text", tmp_path / "file")


def test_a_file_that_fails_is_reported_once_and_standard_error_goes_on(tmp_path, capsys):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = configure("INFO", "text", tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        for number in range(3):
            logging.getLogger("proxy").info("line %d", number)
            writer._write_waiting()
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    written = capsys.readouterr().err
    assert written.count("proxy.log can't be written: [Errno 27] File too large") == 1
    assert [f"line {number}" in written for number in range(3)] == [True] * 3


# -- nobody waits ------------------------------------------------------------------------------


class StuckPipe:
    """A standard error that nobody reads, until `read` is set."""

    def __init__(self):
        self.reached = threading.Event()
        self.read = threading.Event()
        self.written = []

    def write(self, text):
        self.reached.set()
        assert self.read.wait(10)
        self.written += text.splitlines()

    def flush(self):
        pass


def test_a_stuck_output_costs_the_oldest_lines_and_their_number_is_told(monkeypatch):
    pipe = StuckPipe()
    monkeypatch.setattr(sys, "stderr", pipe)
    writer = LogWriter(text_line, waiting_lines=10)
    logging.getLogger().addHandler(writer)
    logger = logging.getLogger("proxy")
    logger.error("first")
    assert pipe.reached.wait(10)
    for number in range(25):
        logger.error("line %d", number)
    assert writer.dropped == 15

    pipe.read.set()
    writer.close()

    kept = [f"line {number}" for number in range(15, 25)]
    told = [line.partition("message=")[2].replace('"', "") for line in pipe.written]
    assert told == ["first", *kept, "log lines were dropped dropped=15"]


def test_a_closed_standard_error_stops_nothing(tmp_path, monkeypatch):
    with open(tmp_path / "closed", "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
    with closing(configure("INFO", "text", tmp_path)):
        logging.getLogger("proxy").info("kept")
    assert "message=kept" in (tmp_path / "proxy.log").read_text()


def test_lines_of_many_threads_are_all_there(capsys):
    def work(name):
        for number in range(200):
            logging.getLogger("proxy").info("%s-%d", name, number)

    with closing(configure("INFO", "text")):
        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    said = [line.partition("message=")[2] for line in lines(capsys)]
    assert sorted(said) == sorted(f"{name}-{n}" for name in "abcd" for n in range(200))
    assert [text for text in said if text[0] == "a"] == [f"a-{n}" for n in range(200)]


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "raise ValueError"])
def test_what_was_logged_is_written_at_exit(ending):
    program = (
        "import logging; from proxy.log import configure; configure('INFO', 'text')\n"
        f"logging.getLogger('proxy').info('last words')\n{ending}"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert 'message="last words"' in ended.stderr
