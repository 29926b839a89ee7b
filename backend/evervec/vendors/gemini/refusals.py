"""From a refusal of Gemini to its `ProviderError`: Google's error body first, then the HTTP status."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
import orjson

from evervec.errors import (
    AuthError,
    ConfigError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitedError,
    TooLargeError,
)
from evervec.vendors.http import error_of_status, reason_of, retry_delay, wall_clock

_MODEL = re.compile(r"/models/([^/:]+)")
_SECONDS = re.compile(r"([0-9.]+)s")
_RETRY_IN = re.compile(r"retry in ([0-9.]+)s", re.IGNORECASE)


@dataclass(frozen=True)
class GeminiRefusal:
    """An answer outside 2xx.

    Its body is `{"error": {"code", "message", "status", "details": [{"@type", …}]}}`, or whatever a proxy in between
    writes. `word` is Google's name of the error, `model` the one that was asked.

    https://cloud.google.com/apis/design/errors
    """

    status: int
    word: str
    reason: str
    details: tuple[dict[str, Any], ...]
    retry_after: str | None = None
    model: str | None = None

    @classmethod
    def of(cls, response: httpx.Response, secret: str) -> "GeminiRefusal":
        """Read an answer whose body is there."""
        reason = reason_of(response.content, secret)
        if response.is_redirect:
            where = response.headers.get("location", "nowhere").replace(secret, "***")
            reason = f"it redirects to {where}, which is not followed"
        error, model = _error_in(response.content), _MODEL.search(response.request.url.path)
        details = error.get("details")
        return cls(
            status=response.status_code,
            word=str(error.get("status", "")),
            reason=reason,
            details=tuple(d for d in details if isinstance(d, dict)) if isinstance(details, list) else (),
            retry_after=response.headers.get("retry-after"),
            model=model[1] if model else None,
        )

    @property
    def missing(self) -> bool:
        """Return whether the thing in the path does not exist.

        For files Google answers 403 then; a 403 about the key has a detail with its reason.
        """
        return self.status == 404 or (self.status == 403 and not self._reasons)

    @property
    def about_key(self) -> bool:
        """Return whether the key is refused: Google answers 400 for a wrong one."""
        if self.status in (401, 403):
            return True
        words = self.reason.lower()
        return self.status == 400 and (any("API_KEY" in reason for reason in self._reasons) or "api key" in words)

    @property
    def daily(self) -> bool:
        """Return whether the quota of a day is used up."""
        return any("PerDay" in quota for quota in self._quotas())

    @property
    def delay(self) -> float:
        """Return the seconds to wait: `RetryInfo`, else the header, else the number in the message."""
        delays = (_SECONDS.fullmatch(str(detail.get("retryDelay", ""))) for detail in self.details)
        found = next((match[1] for match in delays if match), None) or self.retry_after
        in_words = _RETRY_IN.search(self.reason)
        return retry_delay(found or (in_words[1] if in_words else None))

    @property
    def _reasons(self) -> list[str]:
        return [str(detail["reason"]) for detail in self.details if "reason" in detail]

    def _quotas(self) -> Iterator[str]:
        for detail in self.details:
            violations = detail.get("violations")
            for violation in violations if isinstance(violations, list) else ():
                yield str(violation.get("quotaId", "")) if isinstance(violation, dict) else ""


def refusal_error(provider: str, refusal: GeminiRefusal) -> ProviderError:
    """Return the error for a refusal."""
    detail = f"HTTP {refusal.status}: {refusal.reason or 'no reason given'}"
    if refusal.about_key:
        return AuthError(provider, f"{detail} Set another key with `evervec providers add`.")
    match refusal.status:
        case 404:
            return ConfigError(provider, f"{detail} {_advice(refusal.model)}")
        case 429 if refusal.daily:
            return QuotaExhaustedError(provider, detail, until=next_reset(wall_clock()))
        case 429:
            return RateLimitedError(provider, detail, refusal.delay)
        case 400 if refusal.word == "FAILED_PRECONDITION":
            return ConfigError(provider, f"{detail} Look at the region and the billing of the key's project.")
        case 400 if "payload size exceeds" in refusal.reason:
            return TooLargeError(provider, detail)
        case _:
            return error_of_status(provider, refusal.status, refusal.reason, refusal.retry_after)


def next_reset(now: datetime) -> datetime | None:
    """Return the next midnight in California, when daily quotas begin again; None on a machine without time zones.

    https://ai.google.dev/gemini-api/docs/rate-limits
    """
    try:
        there = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:
        return None
    tomorrow = now.astimezone(there).date() + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=there).astimezone(UTC)


def _advice(model: str | None) -> str:
    if model is None:
        return "Check the provider's address with `evervec providers list`."
    return f"Model {model!r} can not do this: choose another with `evervec providers add`."


def _error_in(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}
