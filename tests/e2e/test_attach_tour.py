"""The tour of attached tables holds: five kinds of tables, attached, written to, followed and detached."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.settings import Settings
from scripts.touring.tour import Plan, tour


@pytest.mark.slow
async def test_every_vector_is_that_of_its_row_after_a_tour(bare: Resources, database_url: str, tmp_path: Path) -> None:
    await providers.ensure_default(bare)
    settings = Settings(home=tmp_path, database_url=SecretStr(database_url), nats_url=None, queue="postgres")
    outcome = await tour(database_url, settings, Plan(rows=4_000, rate=200, seconds=3), print)
    assert not outcome.failures, outcome.failures
    assert outcome.facts["embedded_again"] > 0
