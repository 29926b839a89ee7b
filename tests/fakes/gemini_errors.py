"""How Gemini says no."""

from typing import Any

from tests.fakes.wire import Refused, Reply

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
KEY_REASON = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
    "metadata": {"service": "generativelanguage.googleapis.com"},
}


def error(status: int, message: str, *details: dict[str, Any]) -> Reply:
    """Return an answer with Google's error body."""
    body: dict[str, Any] = {"code": status, "message": message, "status": STATUSES[status]}
    return Reply({"error": body | ({"details": list(details)} if details else {})}, status)


def refused(status: int, message: str) -> Refused:
    """Return the same, to be raised."""
    return Refused(error(status, message))
