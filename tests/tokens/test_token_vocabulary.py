import subprocess
import sys
import textwrap

import pytest
from tiktoken_ext import openai_public

from proxy.tokens import vocabulary
from proxy.tokens.vocabulary import BrokenVocabulary, encoded_length, encoding_for, encoding_name


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-4o", "gpt-4o-mini-2024-07-18", "gpt-4.1-nano", "gpt-5", "gpt-5.4", "o1", "o3-pro"),
        *("o4-mini-2025-04-16", "chatgpt-4o-latest", "gpt-oss-120b", "GPT-4o"),
        *("gpt-6", "our-deployment", "", "davinci", "text-davinci-003", "gpt2", "\ud800"),
    ],
)
def test_newer_and_unknown_models_use_o200k(model):
    assert encoding_name(model) == "o200k_base"


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-4", "gpt-4-32k", "gpt-4-turbo-2024-04-09", "GPT-4", "gpt-3.5-turbo", "ft:gpt-4:org"),
        *("gpt-35-turbo", "gpt-35-turbo-16k", "gpt-35-turbo-instruct", "gpt-35", "davinci-002"),
        *("text-embedding-ada-002", "text-embedding-3-small", "text-embedding-3-large-eu"),
    ],
)
def test_older_models_and_embeddings_use_cl100k(model):
    assert encoding_name(model) == "cl100k_base"


# Token ids from the OpenAI cookbook, "How to count tokens with tiktoken".
@pytest.mark.parametrize(
    ("model", "text", "ids"),
    [
        ("gpt-4o", "tiktoken is great!", [83, 8251, 2488, 382, 2212, 0]),
        ("gpt-4o", "antidisestablishmentarianism", [493, 129901, 376, 160388, 21203, 2367]),
        ("gpt-4o", "2 + 2 = 4", [17, 659, 220, 17, 314, 220, 19]),
        ("gpt-4o", "お誕生日おめでとう", [8930, 9697, 243, 128225, 8930, 17693, 4344, 48669]),
        ("gpt-4", "antidisestablishmentarianism", [519, 85342, 34500, 479, 8997, 2191]),
        ("gpt-4", "2 + 2 = 4", [17, 489, 220, 17, 284, 220, 19]),
        (
            "gpt-4",
            "お誕生日おめでとう",
            [33334, 45918, 243, 21990, 9080, 33334, 62004, 16556, 78699],
        ),
    ],
)
def test_texts_encode_to_the_published_tokens(model, text, ids):
    encoding = encoding_for(model)
    assert encoding.encode(text) == ids
    assert encoding.decode(ids) == text


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_the_definitions_are_those_of_the_installed_tiktoken(name, monkeypatch):
    hashes = []

    def no_download(_url, expected_hash):
        hashes.append(expected_hash)
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", no_download)
    published = getattr(openai_public, name)()
    definition = vocabulary._DEFINITIONS[name]
    assert definition.pattern == published["pat_str"]
    assert definition.special_tokens == published["special_tokens"]
    assert [definition.sha256] == hashes


@pytest.mark.parametrize(
    ("model", "last_token"), [("gpt-4o", "<|endofprompt|>"), ("gpt-4", "<|endofprompt|>")]
)
def test_the_whole_vocabulary_is_there(model, last_token):
    encoding = encoding_for(model)
    ordinary = {"o200k_base": 199_998, "cl100k_base": 100_256}[encoding.name]
    assert len(encoding.token_byte_values()) == ordinary
    assert encoding.decode([encoding.max_token_value]) == last_token


def test_importing_loads_nothing_and_loading_needs_no_network_and_no_cache(tmp_path):
    program = """
        import socket
        def refuse(*args, **kwargs):
            raise AssertionError("network")
        socket.socket.connect = socket.getaddrinfo = refuse
        from proxy.tokens import bounds, count, encoder_process, output, vocabulary
        bounds.bounds("chat", {"messages": [{"role": "user", "content": "hi"}]}, 50, "gpt-4o")
        vocabulary.verify()
        assert vocabulary.encoding.cache_info().currsize == 0
        print([vocabulary.encoding_for(model).name for model in ("gpt-4o", "gpt-4")])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"TIKTOKEN_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "['o200k_base', 'cl100k_base']"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4o", 6 + 8), ("gpt-4", 6 + 9)])
def test_the_length_of_several_texts_is_that_of_each_together(model, tokens):
    texts = ["tiktoken is great!", "お誕生日おめでとう"]
    assert encoded_length(texts, encoding_name(model)) == tokens


def test_an_encoding_is_built_once():
    assert encoding_for("gpt-4o") is encoding_for("an-alias")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder in place of the installed package."""
    (tmp_path / "vocabularies").mkdir()
    monkeypatch.setattr(vocabulary.resources, "files", lambda _package: tmp_path)
    return tmp_path


def test_a_file_that_is_not_the_published_one_is_named(package):
    for name in ("o200k_base", "cl100k_base"):
        (package / "vocabularies" / f"{name}.tiktoken").write_bytes(b"IQ== 0\n")
    with pytest.raises(BrokenVocabulary, match=r"cl100k_base\.tiktoken.*SHA-256"):
        vocabulary.encoding.__wrapped__("cl100k_base")
    with pytest.raises(BrokenVocabulary):
        vocabulary.verify()


def test_a_missing_file_is_named(package):
    with pytest.raises(BrokenVocabulary, match=r"o200k_base\.tiktoken"):
        vocabulary.verify()
