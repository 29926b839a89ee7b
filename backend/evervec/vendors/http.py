"""What the HTTP clients of all vendors share: deadlines, checks of address and key, errors from a status or a connection.

What one vendor alone says with its error bodies is in its own `refusals.py`.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from evervec.errors import (
    AuthError,
    BadInputError,
    BadResponseError,
    ConfigError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitedError,
    TooLargeError,
    TransientError,
)

MOST_ERROR_BYTES: Final = 64 << 10
"""Bytes that are read of the body of an error."""

AnswerModel = TypeVar("AnswerModel", bound=BaseModel)

_TOO_LONG: Final = re.compile(
    r"(context|input|maximum sequence) length|token count exceeds|must have less than \d+ tokens"
    r"|input (is )?too (long|large)|text (is )?too long|maximum number of (input )?tokens allowed"
)


@dataclass(frozen=True)
class Deadlines:
    """Seconds: to connect, between two pieces of an answer or of a request, and for one whole answer that is no file."""

    connect: float = 5.0
    silence: float = 60.0
    total: float = 120.0


def require_address(provider: str, base_url: str) -> str:
    """Return `base_url`. Raise `ConfigError` unless it is http(s) with a host, without credentials or control characters."""
    try:
        parts = urlsplit(base_url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        valid = valid and parts.port != 0 and base_url.isprintable() and " " not in base_url and len(base_url) <= 2000
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(provider, f"{base_url[:200]!r} is not an address like http://127.0.0.1:11434.")
    return base_url


def require_key(provider: str, api_key: str) -> str:
    """Return `api_key`. Raise `ConfigError` for one that could add a second header to a request."""
    if not api_key or not api_key.isascii() or not api_key.isprintable() or api_key != api_key.strip():
        raise ConfigError(
            provider, "the key is empty, or has a line break, a blank at an end or a non-ASCII character."
        )
    return api_key


def reason_of(body: bytes, secret: str | None = None) -> str:
    """Return the reason in an error body, printable and without our own key: its `error`, else its first 200 characters."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    reason = document.get("error") if isinstance(document, dict) else None
    reason = reason.get("message") if isinstance(reason, dict) else reason
    text = reason if isinstance(reason, str) else body.decode("utf-8", "replace")
    # The key is hidden before anything is cut: a key across the cut would show its beginning.
    text = text.replace(secret, "***") if secret else text
    text = text if isinstance(reason, str) else text[:200]
    return "".join(c if c.isprintable() else " " for c in text).strip()


def says_too_long(reason: str) -> bool:
    """Return whether a refusal says, in the words of any server, that a text is longer than its model takes."""
    return _TOO_LONG.search(reason.lower()) is not None


def error_of_status(provider: str, status: int, reason: str, retry_after: str | None = None) -> ProviderError:
    """Return the error for an HTTP status outside 2xx; `retry_after` is that header as it came."""
    detail = f"HTTP {status}: {reason.strip() or 'no reason given'}"
    if status in (400, 413, 422, 500) and says_too_long(reason):
        return TooLargeError(provider, detail)
    match status:
        case 401 | 403:
            return AuthError(provider, f"{detail} Set another key with `evervec providers add`.")
        case 402:
            return QuotaExhaustedError(provider, detail)
        case 413:
            return TooLargeError(provider, detail)
        case 429:
            return RateLimitedError(provider, detail, retry_delay(retry_after))
        case 400 | 422:
            return BadInputError(provider, detail)
        case 408 | 409 | 425 | 499:
            return TransientError(provider, detail)
        case _ if status >= 500 and status != 501:
            return TransientError(provider, detail, retry_delay(retry_after, fallback=0.0))
        case _:
            return ConfigError(provider, f"{detail} Check the provider's address with `evervec providers list`.")


@contextmanager
def connection_errors(provider: str, address: str, *, silence: float, total: float) -> Iterator[None]:
    """Raise the `ProviderError` for what httpx raises inside; `silence` and `total` are its deadlines in seconds."""
    try:
        yield
    except TimeoutError:
        raise TransientError(provider, f"no whole answer within {total:g} s") from None
    except httpx.ConnectTimeout:
        raise TransientError(provider, f"{address} does not answer within the connect deadline") from None
    except httpx.TimeoutException:
        raise TransientError(provider, f"nothing came for {silence:g} s") from None
    except httpx.ConnectError as problem:
        raise TransientError(provider, f"{address} can not be reached ({problem}): is it started?") from None
    except httpx.DecodingError as problem:
        raise BadResponseError(provider, f"the answer can not be decompressed: {problem}") from None
    except httpx.TransportError as problem:
        raise TransientError(provider, f"the connection broke: {str(problem) or repr(problem)}") from None


def read_strictly(kind: type[AnswerModel], body: bytes, provider: str) -> AnswerModel:
    """Return the JSON `body` as `kind`, without any conversion. Raise `BadResponseError`, which never quotes the body."""
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as problem:
        raise BadResponseError(provider, first_reason(problem)) from None


def first_reason(problem: ValidationError) -> str:
    """Return the first thing that is wrong, with its place, and never the answer itself."""
    error = problem.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in error["loc"])
    return f"{error['msg']}{f' at {place}' if place else ''}"


def retry_delay(header: str | None, *, fallback: float = 5.0, longest: float = 86_400.0) -> float:
    """Return the seconds to wait by a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3), else `fallback`."""
    try:
        delay = float(header) if header else fallback
    except ValueError:
        delay = _seconds_until(header or "", fallback)
    return min(max(delay, 0.0), longest) if isfinite(delay) else fallback


def _seconds_until(http_date: str, fallback: float) -> float:
    try:
        moment = parsedate_to_datetime(http_date)
    except ValueError:
        return fallback
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - wall_clock()).total_seconds()


def wall_clock() -> datetime:
    """Return this machine's time, for what a vendor names by a date: until then a caller waits, and nothing else."""
    return datetime.now(UTC)
