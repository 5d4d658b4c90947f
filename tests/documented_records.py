"""The two records of an instance as they are documented: every field, in its order and form."""

from __future__ import annotations

from typing import Any

CONFIG: dict[str, Any] = {
    "name": "instance-name",
    "provider_type": "azure",
    "api_key": "your-api-key",
    "api_base": "https://example.openai.azure.com",
    "api_version": "2024-05-15",
    "priority": 100,
    "weight": 100,
    "max_tpm": 30000,
    "max_input_tokens": 4000,
    "supported_models": ["gpt-4"],
    "model_deployments": {"gpt-4": "gpt-4"},
    "enabled": True,
    "timeout_seconds": 60.0,
    "retry_count": 3,
}
STATE: dict[str, Any] = {
    "name": "instance-name",
    "status": "healthy",
    "error_count": 0,
    "last_error": None,
    "rate_limited_until": None,
    "current_tpm": 0,
    "current_rpm": 0,
    "total_requests": 0,
    "successful_requests": 0,
    "last_used": 0.0,
    "last_error_time": None,
    "avg_latency_ms": None,
    "utilization_percentage": 0.0,
    "connection_status": "unknown",
    "health_status": "unknown",
}
