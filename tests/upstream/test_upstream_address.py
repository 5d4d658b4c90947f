"""URL and credential per provider."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from harness import instance_config
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.models import UnresolvedReference
from proxy.errors import NotFound
from proxy.upstream.address import AddressBook, auth_header, endpoint

AZURE = "https://r.openai.azure.com"


@pytest.mark.parametrize(
    ("fields", "operation", "deployment", "url"),
    [
        (
            {"api_base": AZURE, "api_version": "2024-10-21"}, "chat/completions", "gpt-4o-eu",
            f"{AZURE}/openai/deployments/gpt-4o-eu/chat/completions?api-version=2024-10-21",
        ),
        (
            {"api_base": f"{AZURE}/openai/", "api_version": "2024-10-21"}, "embeddings", "e",
            f"{AZURE}/openai/deployments/e/embeddings?api-version=2024-10-21",
        ),
        (
            {"api_base": AZURE, "api_version": "2025-03-01-preview"}, "responses", None,
            f"{AZURE}/openai/responses?api-version=2025-03-01-preview",
        ),
        (
            {"api_base": AZURE, "api_version": "v1"}, "chat/completions", "d",
            f"{AZURE}/openai/v1/chat/completions",
        ),
        (
            {"api_base": f"{AZURE}/openai", "api_version": "preview"}, "responses", None,
            f"{AZURE}/openai/v1/responses?api-version=preview",
        ),
        (
            {"api_base": f"{AZURE}/openai/v1/", "api_version": "2024-10-21"}, "embeddings", "d",
            f"{AZURE}/openai/v1/embeddings",
        ),
        (
            {"api_base": "https://gateway.example/team-a", "api_version": "2024-10-21"},
            "completions", "d",
            "https://gateway.example/team-a/openai/deployments/d/completions?api-version=2024-10-21",
        ),
        (
            {"api_base": "https://api.example", "provider_type": "generic"},
            "chat/completions", "d", "https://api.example/v1/chat/completions",
        ),
        (
            {"api_base": "https://api.example/v1", "provider_type": "generic"},
            "chat/completions", None, "https://api.example/v1/chat/completions",
        ),
        (
            {"api_base": "https://api.example/x/v2beta", "provider_type": "generic"},
            "models/gpt-4", None, "https://api.example/x/v2beta/models/gpt-4",
        ),
        (
            {"api_base": "https://api.example/openai/v1", "provider_type": "generic"},
            "embeddings", None, "https://api.example/openai/v1/embeddings",
        ),
        (
            {"api_base": "https://api.example/dev1", "provider_type": "generic"},
            "embeddings", None, "https://api.example/dev1/v1/embeddings",
        ),
    ],
)  # fmt: skip
def test_the_url_is_that_of_the_surface(
    fields: dict[str, str], operation: str, deployment: str | None, url: str
) -> None:
    assert endpoint(instance_config(**fields), operation, deployment) == url


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"", "?api-version=V"),
        (b"api-version=2022-12-01", "?api-version=V"),
        (b"API-Version=x&limit=5", "?api-version=V&limit=5"),
        (b"api%2Dversion=x&&after=a%20b", "?api-version=V&after=a%20b"),
        (b"a=\xff b\r\nc#d", "?api-version=V&a=%FF%20b%0D%0Ac%23d"),
    ],
)
def test_the_clients_query_is_kept_but_for_the_version(query: bytes, kept: str) -> None:
    config = instance_config(api_base=AZURE, api_version="V")
    assert endpoint(config, "files", None, query) == f"{AZURE}/openai/files{kept}"
    generic = instance_config(api_base=AZURE, provider_type="generic")
    expected = f"{AZURE}/v1/files{kept.replace('api-version=V', '').replace('?&', '?')}"
    assert endpoint(generic, "files", None, query) == expected.removesuffix("?")


@settings(deadline=None)
@given(st.text(min_size=1))
def test_a_name_is_one_segment_whatever_it_holds(name: str) -> None:
    config = instance_config(api_base=AZURE, api_version="V")
    if name in (".", ".."):
        with pytest.raises(NotFound):
            endpoint(config, "chat/completions", name)
        return
    url = endpoint(config, "chat/completions", name)
    assert url.isascii()
    assert url.isprintable()
    path = urlsplit(url).path.split("/")
    assert path[:3] + path[4:] == ["", "openai", "deployments", "chat", "completions"]
    assert unquote(path[3]) == name.encode(errors="replace").decode()


@pytest.mark.parametrize("operation", ["responses/../files", "models/", "models//x", "."])
def test_a_path_trick_in_the_operation_is_not_found(operation: str) -> None:
    with pytest.raises(NotFound):
        endpoint(instance_config(), operation)


def test_the_key_goes_into_the_providers_header() -> None:
    azure = instance_config(api_key="k1")
    generic = instance_config(api_key="${UPSTREAM_KEY}", provider_type="generic")
    assert auth_header(azure) == (b"api-key", b"k1")
    assert auth_header(generic, {"UPSTREAM_KEY": "k2"}) == (b"authorization", b"Bearer k2")
    with pytest.raises(UnresolvedReference):
        auth_header(generic, {})


def test_the_book_says_the_same_and_knows_configurations_apart() -> None:
    book = AddressBook(urls_limit=2)
    one = instance_config(api_base=AZURE, api_version="V", api_key="k1")
    other = one.model_copy(update={"api_base": "https://other.example", "api_key": "k2"})
    for _ in range(2):
        for config in (one, other):
            assert book.auth_header(config) == auth_header(config)
            for deployment in ("a", "b", "c"):
                assert book.endpoint(config, "embeddings", deployment, b"q=1") == endpoint(
                    config, "embeddings", deployment, b"q=1"
                )


def test_the_book_is_bounded_and_no_configuration_inherits_anothers_page() -> None:
    book = AddressBook()
    for number in range(2 * AddressBook.PAGES_LIMIT):
        config = instance_config(api_base=f"https://h{number}.example", api_key=f"k{number}")
        assert book.endpoint(config, "files").startswith(f"https://h{number}.example/")
        assert book.auth_header(config)[1] == f"k{number}".encode()
    assert len(book._pages) <= AddressBook.PAGES_LIMIT
