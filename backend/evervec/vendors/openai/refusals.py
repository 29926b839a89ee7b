"""From a refusal of OpenAI, or of a compatible server, to its `ProviderError`: OpenAI's codes first, then the HTTP status.

Codes and messages: https://platform.openai.com/docs/guides/error-codes, and what compatible servers say instead.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from evervec.errors import (
    AuthError,
    BadResponseError,
    ConfigError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitedError,
    TooLargeError,
    TransientError,
)
from evervec.vendors.http import error_of_status, reason_of, retry_delay, says_too_long

FALLBACK_DELAY: Final = 5.0
"""Seconds to wait after a 429 that names no time."""

NO_HEADERS: Final[Mapping[str, str]] = {}

_UNPAID: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_TOO_MUCH: Final = frozenset({"max_tokens_per_request", "array_above_max_length"})
_MOST_TEXTS: Final = re.compile(
    r"(?:batch size|larger than|greater than|no more than|at most|maximum length|maximum(?: of| is|:)?|max(?: of| is|:)?) (\d+)\b(?! tokens)"
)
_TRY_AGAIN: Final = re.compile(r"try again in ((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.IGNORECASE)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class NotThereError(ConfigError):
    """{provider} is configured wrongly: {detail}"""


class OptionRefusedError(ConfigError):
    """{provider} is configured wrongly: {detail}"""


class StateConflictError(TransientError):
    """{provider} does not work at the moment: {detail}"""


def refusal_error(
    provider: str, status: int, body: bytes, headers: Mapping[str, str], *, model: str, secret: str | None = None
) -> ProviderError:
    """Return the error for an answer outside 2xx.

    `NotThereError` is a 404 of the API itself, not of a proxy or a wrong address: the object of this id is deleted.
    `StateConflictError` is a 409 of that kind: the request does not fit the object's present state.
    """
    marks, reason = _marks(body), reason_of(body, secret)
    words, detail = reason.lower(), f"HTTP {status}: {reason or 'no reason given'}"
    if marks & _UNPAID:
        return QuotaExhaustedError(provider, detail)
    if "invalid_api_key" in marks or (status == 400 and "api key not valid" in words):
        return AuthError(provider, f"{detail} Set another key with `evervec providers add`.")
    if "model_not_found" in marks or (status == 404 and model in reason):
        return ConfigError(
            provider, f"model {model!r} is not there ({detail}). Choose one with `evervec providers add`."
        )
    if status == 404 and marks:
        return NotThereError(provider, detail)
    if status == 409 and marks:
        return StateConflictError(provider, detail)
    if status == 429:
        return RateLimitedError(provider, detail, _delay(headers, reason))
    if status in (400, 413, 422) and (marks & _TOO_MUCH or status == 413 or _is_too_much(words)):
        return TooLargeError(provider, detail, texts=_most_texts(words))
    if "support" in words and "parameters" in words and "encoding_format" in words:
        return OptionRefusedError(provider, detail)
    if status in (400, 422) and ("dimensions" in marks or ("dimensions" in words and "support" in words)):
        return OptionRefusedError(provider, f"model {model!r} does not make vectors of that width ({detail}).")
    if status == 424:
        return TransientError(provider, detail)  # text-embeddings-inference, whose model's process failed
    return error_of_status(provider, status, reason, headers.get("retry-after"))


def hidden_refusal(provider: str, body: bytes, *, model: str, secret: str | None = None) -> ProviderError | None:
    """Return the error of an answer of 200 that is none: some servers say only in the body that they failed."""
    if not body.lstrip().startswith(b"{") or b'"error"' not in body[:4096] or b'"data"' in body[:4096]:
        return None
    error = _document(body).get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        return refusal_error(provider, code, body, NO_HEADERS, model=model, secret=secret)
    reason = reason_of(body, secret)
    if says_too_long(reason):
        return TooLargeError(provider, reason)
    return BadResponseError(provider, f"it answers 200 with an error: {reason}")


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _marks(body: bytes) -> frozenset[str]:
    """Return `code`, `type` and `param` of `{"error": {…}}`, and `error` itself if there is one; empty for anything else."""
    error = _document(body).get("error")
    if not isinstance(error, dict):
        return frozenset()
    found = (error.get(name) for name in ("code", "type", "param"))
    return frozenset({"error", *(mark for mark in found if isinstance(mark, str))})


def _is_too_much(words: str) -> bool:
    """Return whether the whole request is too large, as OpenAI, text-embeddings-inference, DashScope and others say it."""
    return (
        "array too long" in words
        or "tokens per request" in words
        or ("batch size" in words and ("maximum" in words or "larger than" in words))
        or "number of texts" in words
    )


def _most_texts(words: str) -> int | None:
    """Return how many texts a request may have, where a refusal says so."""
    if "tokens per request" in words or not any(sign in words for sign in ("batch size", "array", "number of texts")):
        return None
    numbers = [int(number) for number in _MOST_TEXTS.findall(words)]
    return min(numbers) if numbers and min(numbers) > 0 else None


def _delay(headers: Mapping[str, str], reason: str) -> float:
    """Return the seconds to wait: `retry-after-ms`, else `retry-after`, else what the message says (`6m0s`, `20ms`)."""
    said = _TRY_AGAIN.search(reason)
    spoken = (
        sum(float(n) * _SECONDS[unit.lower()] for n, unit in _DURATION.findall(said[1])) if said else FALLBACK_DELAY
    )
    milliseconds = headers.get("retry-after-ms")
    by_header = retry_delay(headers.get("retry-after"), fallback=spoken)
    return retry_delay(f"{milliseconds}e-3" if milliseconds else None, fallback=by_header)
