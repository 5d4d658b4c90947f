"""What the official SDK leaves behind, which is not ours to mend."""

from __future__ import annotations

import pytest

SDK_WARNINGS = [
    # The SDK and its HTTP library leave generators to the collector (encode/httpx#3593).
    pytest.mark.filterwarnings("ignore:.*(httpcore2|httpx2|openai).*:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*(PoolByteStream|Response|SSEDecoder|AsyncStream).*"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]
