"""What the tests of killed and of frozen batch processes share."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.e2e.rows import WIDTH
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import (
    assert_every_vector_is_right,
    assert_nothing_is_left,
    assert_one_job_per_intent,
    assert_paid_once,
)

ROWS = 100

whoever = pytest.mark.parametrize("lane", ["gemini"], indirect=True)
"""What does not depend on the provider is tried with one."""


async def assert_as_if_nothing_had_happened(psql: Any, fake: FakeProvider, texts: Sequence[str]) -> None:
    """Assert that every row has its vector, written once and paid once, and that nothing is left anywhere."""
    assert await assert_every_vector_is_right(psql, WIDTH) == len(texts)
    assert_paid_once(fake, texts)
    await assert_one_job_per_intent(psql, fake)
    await assert_nothing_is_left(psql, fake)
