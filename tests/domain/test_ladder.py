"""The failure ladder: who rests for how long, and which text is to blame."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.domain import ladder
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

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ERRORS: list[ProviderError] = [
    TransientError("p", "503"),
    RateLimitedError("p", "429", 7),
    QuotaExhaustedError("p", "no money"),
    AuthError("p", "401"),
    ConfigError("p", "404"),
    BadInputError("p", "400"),
    TooLargeError("p", "413"),
    BadResponseError("p", "HTML"),
]
every_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


def test_there_is_a_rung_for_every_answer_of_a_provider() -> None:
    assert {type(error) for error in ERRORS} == set(ProviderError.__subclasses__())


@every_error
@given(failures=st.integers(0, 10_000))
def test_every_pause_ends(error: ProviderError, failures: int) -> None:
    seconds, _ = ladder.pause(error, failures, now=NOW)
    assert 0 < seconds <= ladder.QUOTA_PAUSE


def test_a_provider_that_is_out_rests_twice_as_long_each_time_up_to_a_limit() -> None:
    pauses = [ladder.pause(TransientError("p", "503"), failures, now=NOW) for failures in range(9)]
    assert pauses == [(min(0.5 * 2**failures, ladder.LONGEST_PAUSE), True) for failures in range(9)]


def test_a_provider_that_says_when_is_believed_and_that_is_no_failure() -> None:
    assert ladder.pause(RateLimitedError("p", "429", 7), 5, now=NOW) == (7, False)
    assert ladder.pause(RateLimitedError("p", "429", 0), 5, now=NOW) == (0.1, False)
    until = QuotaExhaustedError("p", "empty", NOW + timedelta(hours=2))
    assert ladder.pause(until, 5, now=NOW) == (7200, False)
    over = QuotaExhaustedError("p", "empty", NOW - timedelta(hours=2))
    assert ladder.pause(over, 5, now=NOW) == (1, False)


def test_what_a_person_has_to_mend_is_tried_again_every_quarter_minute() -> None:
    assert {ladder.pause(error, 9, now=NOW) for error in (AuthError("p", "401"), ConfigError("p", "404"))} == {
        (15, True)
    }


@every_error
def test_only_a_text_that_the_provider_refuses_is_given_up(error: ProviderError) -> None:
    at_once = isinstance(error, BadInputError | TooLargeError)
    third_time = at_once or isinstance(error, BadResponseError | TransientError)
    assert [ladder.gives_up(error, attempts) for attempts in (0, 1, 2, 50)] == [
        at_once,
        at_once,
        third_time,
        third_time,
    ]


@given(st.integers(0, 10_000))
def test_a_row_rests_longer_each_time_and_never_longer_than_five_minutes(attempts: int) -> None:
    assert 1 <= ladder.row_delay(attempts) <= ladder.row_delay(attempts + 1) <= 300
