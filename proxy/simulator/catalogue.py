"""The error answers of the service, one function each, with bodies as seen on the wire.

Sources: learn.microsoft.com, "Troubleshoot errors" and "Content filtering", read 2026-11, and
public reports of what the service really sends. The plain dialect is OpenAI's own
(platform.openai.com, "Error codes").
"""

from __future__ import annotations

from typing import Any

from proxy.simulator.call import ApiError

_SAFE = {"filtered": False, "severity": "safe"}
SAFE_RESULT: dict[str, Any] = {
    "hate": _SAFE,
    "self_harm": _SAFE,
    "sexual": _SAFE,
    "violence": _SAFE,
}
"""A content-filter result that found nothing."""

BLOCKED_RESULT: dict[str, Any] = {**SAFE_RESULT, "violence": {"filtered": True, "severity": "high"}}


def _invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return ApiError(400, error)


def malformed_body() -> ApiError:
    return _invalid("We could not parse the JSON body of your request.")


def missing(param: str) -> ApiError:
    return _invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def wrong_type(param: str, wanted: str) -> ApiError:
    return _invalid(f"Invalid type for '{param}': expected {wanted}.", param, "invalid_type")


def wrong_value(param: str, wanted: str) -> ApiError:
    return _invalid(f"Invalid value for '{param}': expected {wanted}.", param, "invalid_value")


def below_minimum(param: str, least: int, value: int) -> ApiError:
    return _invalid(
        f"Invalid '{param}': integer below minimum value. "
        f"Expected a value >= {least}, but got {value} instead.",
        param,
        "integer_below_min_value",
    )


def unrecognized_argument(param: str) -> ApiError:
    return _invalid(f"Unrecognized request argument supplied: {param}")


def unsupported_max_tokens() -> ApiError:
    return _invalid(
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        "max_tokens",
        "unsupported_parameter",
    )


def context_length_exceeded(limit: int, tokens: int, param: str) -> ApiError:
    return _invalid(
        f"This model's maximum context length is {limit} tokens. However, your messages resulted "
        f"in {tokens} tokens. Please reduce the length of the messages.",
        param,
        "context_length_exceeded",
    )


def previous_response_not_found(response_id: str) -> ApiError:
    return _invalid(
        f"Previous response with id '{response_id}' not found.",
        "previous_response_id",
        "previous_response_not_found",
    )


def invalid_encrypted_content() -> ApiError:
    return _invalid(
        "The encrypted content could not be verified. "
        "Reason: Encrypted content could not be decrypted or parsed.",
        None,
        "invalid_encrypted_content",
    )


def prompt_blocked() -> ApiError:
    return ApiError(
        400,
        {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's "
            "content management policy. Please modify your prompt and retry.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": BLOCKED_RESULT,
            },
        },
    )


def operation_not_supported(verb: str, model: str) -> ApiError:
    return ApiError(
        400,
        {
            "code": "OperationNotSupported",
            "message": f"The {verb} operation does not work with the specified model, {model}. "
            "Please choose different model and try again.",
        },
    )


def bad_key() -> ApiError:
    return ApiError(
        401,
        {
            "code": "401",
            "message": "Access denied due to invalid subscription key or wrong API endpoint. "
            "Make sure to provide a valid key for an active subscription and use a correct "
            "regional API endpoint for your resource.",
        },
    )


def bad_token() -> ApiError:
    return ApiError(
        401,
        {
            "code": "401",
            "message": "Unauthorized. Access token is missing, invalid, audience is incorrect "
            "(https://cognitiveservices.azure.com), or have expired.",
        },
    )


def bad_key_plain() -> ApiError:
    return ApiError(
        401,
        {
            "message": "Incorrect API key provided.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        },
    )


def deployment_not_found() -> ApiError:
    return ApiError(
        404,
        {
            "code": "DeploymentNotFound",
            "type": "invalid_request_error",
            "message": "The API deployment for this resource does not exist. If you created the "
            "deployment within the last 5 minutes, please wait a moment and try again.",
        },
    )


def model_not_found_plain(model: str) -> ApiError:
    return ApiError(
        404,
        {
            "message": f"The model '{model}' does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        },
    )


def resource_not_found() -> ApiError:
    return ApiError(404, {"code": "404", "message": "Resource not found"})


def item_not_found(kind: str, item_id: str) -> ApiError:
    """A response, file or batch that this resource does not have."""
    return ApiError(
        404,
        {
            "message": f"{kind} with id '{item_id}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
    )


def too_many_headers() -> ApiError:
    return ApiError(431, {"code": "431", "message": "Request Header Fields Too Large"})


def service_failure(status: int) -> ApiError:
    """The service's own failure: 408, 409, 500, 503 or any other status."""
    match status:
        case 403:
            code, message = "403", "Key based authentication is disabled for this resource."
        case 408:
            code, message = "Timeout", "The operation was timeout."
        case 500:
            code = "InternalServerError"
            message = "Backend returned unexpected response. Please contact Microsoft for help."
        case 503:
            code = "ServiceUnavailable"
            message = "The service is temporarily unable to process your request."
        case _:
            code, message = str(status), "The request failed."
    return ApiError(status, {"code": code, "message": message})
