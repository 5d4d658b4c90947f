"""The error objects that Azure sends, in its words."""

from __future__ import annotations

SECRET = "Invalid value: 'the patient is John Doe'."
FILTERED = {
    "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
    "management policy.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
    },
}
TOO_LONG = {
    "message": "This model's maximum context length is 8192 tokens. However, your messages "
    "resulted in 9000 tokens.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
NOT_SUPPORTED = {
    "code": "OperationNotSupported",
    "message": "The chatCompletion operation does not work with the specified model, ada.",
}
OLD_VERSION = {"code": "BadRequest", "message": "API version not supported"}
INVALID_KEY = {
    "code": "401",
    "message": "Access denied due to invalid subscription key or wrong API endpoint. Make sure to "
    "provide a valid key for an active subscription.",
}
NO_ROLE = {
    "code": "PermissionDenied",
    "message": "The principal `p` lacks the required data action `Microsoft.CognitiveServices/"
    "accounts/OpenAI/deployments/chat/completions/action` to perform `POST /openai`",
}
KEYS_DISABLED = {
    "code": "AuthenticationTypeDisabled",
    "message": "Key based authentication is disabled for this resource.",
}
NO_DEPLOYMENT = {
    "code": "DeploymentNotFound",
    "message": "The API deployment for this resource does not exist. If you created the deployment "
    "within the last 5 minutes, please wait a moment and try again.",
}
RATE_LIMIT = {
    "code": "429",
    "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version "
    "2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please "
    "retry after 20 seconds.",
}
PTU_FULL = {
    "code": "rate_limit_reached",
    "message": "Requests have exceeded the throughput limit on your Provisioned-Managed "
    "deployment.",
}
NO_CAPACITY = {
    "type": "too_many_requests",
    "code": "no_capacity",
    "message": "The system is currently experiencing high demand and cannot process your request.",
}
BACKEND = {
    "code": "InternalServerError",
    "message": "Backend returned unexpected response. Please contact Microsoft for help.",
}
