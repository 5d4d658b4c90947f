"""Which operation a path asks for, and which paths ask for none."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange.operations import OPERATIONS, Target, find, is_data_plane

BY_PATH = {operation.path: operation for operation in OPERATIONS}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_an_operation_is_found_at_all_addresses(operation) -> None:
    for address in ("/v1/", "/openai/v1/", "/openai/"):
        assert find(address + operation.path) == Target(operation)
    named = find(f"/openai/deployments/my gpt/{operation.path}")
    assert named == Target(operation, model="my gpt")


def test_the_table_says_what_azure_scopes_to_a_deployment_and_how_streams_end() -> None:
    assert [operation.path for operation in OPERATIONS if not operation.deployment_scoped] == [
        "responses",
        "responses/compact",
        "moderations",
    ]
    assert [operation.path for operation in OPERATIONS if operation.kept] == [
        "responses",
        "responses/compact",
    ]
    assert {operation.path: operation.ending for operation in OPERATIONS} == {
        "chat/completions": "choices",
        "completions": "choices",
        "embeddings": "close",
        "responses": "response",
        "responses/compact": "close",
        "images/generations": "close",
        "images/edits": "close",
        "audio/speech": "close",
        "audio/transcriptions": "close",
        "audio/translations": "close",
        "moderations": "close",
    }
    assert {operation.path for operation in OPERATIONS if operation.stream_usage} == {
        "chat/completions",
        "completions",
    }


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models", ""),
        ("/v1/models/", ""),
        ("/openai/models", ""),
        ("/openai/v1/models/gpt-4", "gpt-4"),
        ("/v1/models/org/model", "org/model"),
    ],
)
def test_models_are_listed_or_looked_up(path: str, model: str) -> None:
    assert find(path) == Target(models=model)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/",
        "/v1//chat/completions",
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/chat//completions",
        "/V1/chat/completions",
        "/v1/chat/Completions",
        "/v1/./chat/completions",
        "/v1/x/../chat/completions",
        "/v1/../admin/instances",
        "/v1/../v1/chat/completions",
        "/v1/chat/completions\n",
        "/v1/chat/completions?x",
        "/v1/deployments/gpt-4/chat/completions",
        "/v1/modelsx",
        "/openai/deployments//chat/completions",
        "/openai/deployments/./chat/completions",
        "/openai/deployments/../chat/completions",
        "/openai/deployments/a/../b/chat/completions",
        "/openai/deployments/gpt-4",
        "/openai/deployments/gpt-4/",
        "/openai/deployments/gpt-4/models",
        # `a%2Fb` in the path: decoded before it comes here, so it is two segments
        "/openai/deployments/a/b/chat/completions",
        # `%2e%2e` encoded twice: decoded once it is a name, and stays one
        "/openai/deployments/gpt-4/%2e%2e/chat/completions",
        "/admin/instances",
    ],
)
def test_a_path_that_is_not_quite_one_is_none(path: str) -> None:
    assert find(path) is None


def test_a_name_is_not_decoded_a_second_time() -> None:
    target = find("/openai/deployments/%2e%2e%2fadmin/chat/completions")
    assert target == Target(BY_PATH["chat/completions"], model="%2e%2e%2fadmin")


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/v1/anything", True),
        ("/openai/x", True),
        ("/v1/../admin", True),
        ("/admin/instances", False),
        ("/v10/x", False),
        ("/healthz", False),
        ("/openaix/", False),
    ],
)
def test_the_data_plane_is_told_by_its_first_segment(path: str, *, ours: bool) -> None:
    assert is_data_plane(path) is ours


@settings(deadline=None)
@given(st.text("/.%abv1openaidlytsmchr", max_size=60) | st.text())
def test_whatever_is_found_is_in_the_data_plane_and_names_no_path(path: str) -> None:
    target = find(path)
    if target is None:
        return
    assert is_data_plane(path)
    assert [target.operation, target.models, target.place].count(None) == 2
    if target.model is not None:
        assert target.model not in ("", ".", "..")
        assert "/" not in target.model


def test_the_exchange_can_do_without_what_is_bound() -> None:
    """`proxy.bound` is built on `proxy.exchange`, and not the other way round as well."""
    program = """
import importlib, pkgutil, sys, proxy.exchange
for module in pkgutil.iter_modules(proxy.exchange.__path__, "proxy.exchange."):
    importlib.import_module(module.name)
sys.exit(any(name.startswith("proxy.bound") for name in sys.modules))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
