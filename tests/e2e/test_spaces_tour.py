"""The tour of spaces holds: built, activated, rolled back, activated and dropped under load, with nothing lost or mixed."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.settings import Settings
from evervec.store.providers import ProviderDraft
from scripts.space_touring.tour import Plan, tour
from tests.fakes.server import FakeProvider


@pytest.mark.slow
@pytest.mark.parametrize(("datasets", "changed"), [(1, 1), (3, 1)])
async def test_a_model_is_changed_under_load_and_nothing_is_lost_or_mixed(
    bare: Resources, fake: FakeProvider, database_url: str, tmp_path: Path, datasets: int, changed: int
) -> None:
    await providers.ensure_default(bare)
    await providers.add(bare, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder"), activate=False)
    settings = Settings(
        home=tmp_path, database_url=SecretStr(database_url), nats_url=None, queue="postgres", sweep_seconds=0.5
    )
    plan = Plan("fake", rows=600, searches=10, writes=10, seconds=2, datasets=datasets, changed=changed)
    outcome = await tour(settings, plan, print)
    assert not outcome.failures, outcome.failures[:5]
    assert outcome.facts["searches"] > 20 and outcome.facts["writes"] > 20
