"""The failure ladder: how long a provider is paused after an error, and when a row has failed."""

from datetime import datetime

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

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
"""Work continues within seconds after the provider is back; all workers together call it no more often."""
OPERATOR_PAUSE = 15.0
"""Seconds between two calls while a person has to correct something (a key, a model's name)."""
QUOTA_PAUSE = 900.0
TEXT_ATTEMPTS = 3
"""Failures of a text alone, while the provider serves others, until it is given up."""
LONGEST_ROW_DELAY = 300.0


def pause(error: ProviderError, failures: int, *, now: datetime) -> tuple[float, bool]:
    """Return `(seconds to pause the provider, whether it counts as a failure)` after `failures` counted ones in a row."""
    match error:
        case RateLimitedError():
            return max(error.delay, 0.1), False
        case QuotaExhaustedError():
            left = QUOTA_PAUSE if error.until is None else (error.until - now).total_seconds()
            return max(left, 1.0), False
        case AuthError() | ConfigError():
            return OPERATOR_PAUSE, True
        case _:
            asked = error.delay if isinstance(error, TransientError) else 0.0
            return max(min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(failures, 10))), min(asked, QUOTA_PAUSE)), True


def gives_up(error: ProviderError, attempts: int) -> bool:
    """Return whether a row has failed for good that failed alone, while the provider served others."""
    match error:
        case BadInputError() | TooLargeError():
            return True
        case BadResponseError() | TransientError():
            return attempts + 1 >= TEXT_ATTEMPTS
        case _:
            return False


def row_delay(attempts: int) -> float:
    """Return the seconds to delay a row after its failure number `attempts` + 1."""
    return min(LONGEST_ROW_DELAY, float(1 << min(attempts, 10)))
