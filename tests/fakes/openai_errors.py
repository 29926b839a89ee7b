"""How OpenAI says no."""

from tests.fakes.wire import Refused, Reply

INVALID = "invalid_request_error"
KINDS = {401: INVALID, 403: INVALID, 404: INVALID, 429: "requests", 500: "server_error", 503: "server_error"}


def error(
    status: int, message: str, code: str | None = None, *, kind: str | None = None, param: str | None = None
) -> Reply:
    """Return an answer with OpenAI's error body."""
    kind = kind or KINDS.get(status, INVALID if status < 500 else "server_error")
    return Reply({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def refused(status: int, message: str, code: str | None = None, *, param: str | None = None) -> Refused:
    """Return the same, to be raised."""
    return Refused(error(status, message, code, param=param))
