"""The sanity gate: what may reach the database, and whose fault it is when it may not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evervec.domain.vectors import check_vectors
from evervec.errors import BadResponseError, ConfigError

Array = np.ndarray[Any, np.dtype[np.float32]]
LARGEST_HALF = 65_504.0


def judged(vectors: Array) -> list[bool]:
    answer = check_vectors(vectors, count=vectors.shape[0], dimensions=vectors.shape[1], provider="p")
    assert (answer.dtype, answer.shape) == (np.bool_, (vectors.shape[0],))
    return [bool(sound) for sound in answer]


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 8), st.integers(1, 8)),
        elements=st.floats(width=32) | st.sampled_from([np.nan, np.inf, 0.0, 1.0]),
    )
)
def test_a_row_passes_if_half_precision_can_hold_it_and_something_is_left(vectors: Array) -> None:
    for sound, row in zip(judged(vectors), vectors, strict=True):
        fits = all(np.isfinite(value) and abs(value) < LARGEST_HALF + 16 for value in row.tolist())
        assert sound == (fits and any(abs(value) > 2.0**-25 for value in row.tolist()))


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_an_answer_of_another_count_can_not_be_matched(sent: int, came: int, width: int) -> None:
    vectors = np.ones((came, width), np.float32)
    if sent == came:
        assert judged(vectors) == [True] * came
    else:
        with pytest.raises(BadResponseError, match=f"{sent} texts were sent"):
            check_vectors(vectors, count=sent, dimensions=width, provider="p")


@given(st.integers(1, 9), st.integers(1, 9).filter(lambda width: width != 4))
def test_another_width_is_a_matter_of_configuration_never_of_a_text(count: int, width: int) -> None:
    with pytest.raises(ConfigError, match=f"{width} dimensions, the space has 4"):
        check_vectors(np.ones((count, width), np.float32), count=count, dimensions=4, provider="p")


def test_an_answer_that_is_no_table_is_refused() -> None:
    with pytest.raises(BadResponseError):
        check_vectors(np.ones(3, np.float32), count=3, dimensions=1, provider="p")
