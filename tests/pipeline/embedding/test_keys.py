"""Keys of providers: rotated in one transaction, and found nowhere but as ciphertext, however a provider fails."""

import io
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from evervec.errors import EvervecError, Refused
from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.embedding import keys, providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.embedding.health import check_providers, make_checks_due
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import overview
from evervec.pipeline.status.overview import describe
from evervec.store import secrets
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.embedding.test_embed import save, unpause

CANARY = "sk-canary-7f3a91c2"
WAITING = (Fault.STALL, Fault.STALL_MID_BODY, Fault.SLOW_LOAD)
"""Faults that only take time: what they say is what a reset says."""

VENDORS = ("openai", "gemini", "ollama")


async def everything_in(psql: Any) -> str:
    """Return every row of every table of the database as text."""
    tables = await psql.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    rows = [await psql.fetch(f"SELECT t::text AS row FROM {table['name']} t") for table in tables]
    return "\n".join(row["row"] for table in rows for row in table)


@pytest.fixture
async def keyed_fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=32, api_key=CANARY) as running:
        yield running


def draft(fake: FakeProvider, vendor: str) -> ProviderDraft:
    return ProviderDraft(vendor, vendor, base_url=fake.url, model="embedder", api_key=CANARY)


WithKey = Callable[[Resources, str], Resources]


@pytest.fixture
async def with_key() -> AsyncIterator[WithKey]:
    """Return resources with another secret key; their clients are closed afterwards."""
    opened: list[ProviderClients] = []

    def give(resources: Resources, key: str) -> Resources:
        opened.append(ProviderClients(key))
        settings = resources.settings.model_copy(update={"secret_key": SecretStr(key)})
        return replace(resources, settings=settings, clients=opened[-1])

    yield give
    for clients in opened:
        await clients.aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_key_is_found_nowhere_but_as_ciphertext_however_its_provider_fails(
    keyed: Resources, dataset: DatasetRef, keyed_fake: FakeProvider, psql: Any, vendor: str, capsys: Any
) -> None:
    fake, said, root = keyed_fake, io.StringIO(), logging.getLogger()
    heard = logging.StreamHandler(said)
    root.addHandler(heard)
    root.setLevel(logging.DEBUG)
    shown: list[object] = [await providers.add(keyed, draft(fake, vendor)), draft(fake, vendor)]
    for number, fault in enumerate(fault for fault in Fault if fault not in WAITING and "chat" not in fault):
        await save(keyed, dataset, [f"text {number} {i}" for i in range(3)], first=1 + 10 * number)
        fake.always(None, fault)
        shown.append(await embed_dataset(keyed, dataset.id))
        try:
            shown.append(await providers.test(keyed, vendor))
        except EvervecError as error:
            shown += [repr(error), str(error), error.values, "".join(traceback.format_exception(error))]
        await make_checks_due(keyed)
        await check_providers(keyed)
        shown += [repr(await keyed.provider()), repr(describe(await keyed.provider())), repr(keyed.settings)]
        fake.heal()
        await unpause(psql)
    shown.append(await overview.status(keyed))
    root.removeHandler(heard)
    streams = capsys.readouterr()
    stored = await everything_in(psql)
    assert len(stored) > 1000 and vendor in stored
    assert vendor in said.getvalue() + streams.out + streams.err, "the logs were read"
    for text in (stored, said.getvalue(), streams.out, streams.err, repr(shown), " ".join(map(str, shown))):
        assert CANARY not in text
        assert CANARY.encode().hex() not in text
    sealed = (await keyed.provider()).api_key_encrypted
    assert sealed is not None and CANARY.encode() not in sealed
    settings_key = keyed.settings.secret_key
    assert settings_key is not None
    assert secrets.unseal(settings_key.get_secret_value(), sealed) == CANARY


async def test_a_rotation_seals_everything_with_the_new_key_and_the_old_one_opens_nothing(
    keyed: Resources, dataset: DatasetRef, keyed_fake: FakeProvider, with_key: WithKey
) -> None:
    old = keyed.settings.secret_key
    assert old is not None
    await providers.add(keyed, draft(keyed_fake, "openai"))
    await save(keyed, dataset, ["one"])
    new = secrets.new_key()
    both = with_key(keyed, f"{new},{old.get_secret_value()}")
    assert (await embed_dataset(both, dataset.id)).success == 1, "what the old key sealed is read before the rotation"
    assert await keys.rotate_secret(both) == keys.Rotation(providers=1, sources=0)
    after = with_key(keyed, new)
    await save(after, dataset, ["two"], first=2)
    assert (await embed_dataset(after, dataset.id)).success == 1
    added = await providers.add(after, replace(draft(keyed_fake, "openai"), name="twin"), activate=False)
    assert added.endpoint == (await after.provider()).endpoint, "records of one key still share a breaker"
    await save(after, dataset, ["three"], first=3)
    with pytest.raises(Refused, match="another EVERVEC_SECRET_KEY"):
        await embed_dataset(with_key(keyed, old.get_secret_value()), dataset.id)


async def test_a_rotation_without_a_new_key_or_with_a_foreign_one_changes_nothing(
    keyed: Resources, keyed_fake: FakeProvider, psql: Any, with_key: WithKey
) -> None:
    await providers.add(keyed, draft(keyed_fake, "openai"))
    before = await psql.fetchval("SELECT api_key_encrypted FROM llm_providers")
    with pytest.raises(Refused, match="NEW,OLD"):
        await keys.rotate_secret(keyed)
    with pytest.raises(Refused, match="another EVERVEC_SECRET_KEY"):
        await keys.rotate_secret(with_key(keyed, f"{secrets.new_key()},{secrets.new_key()}"))
    assert await psql.fetchval("SELECT api_key_encrypted FROM llm_providers") == before


async def test_the_key_that_we_keep_in_a_file_is_made_anew(
    keyed: Resources, keyed_fake: FakeProvider, with_key: WithKey
) -> None:
    old = keyed.settings.secret_key
    assert old is not None and keyed.settings.embedded_database
    file = keyed.settings.home / secrets.KEY_FILE
    file.write_text(old.get_secret_value())
    await providers.add(keyed, draft(keyed_fake, "openai"))
    assert (await keys.rotate_secret(keyed)).providers == 1
    new = file.read_text()
    assert new != old.get_secret_value() and "," not in new
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await providers.test(with_key(keyed, new), "openai")).dimensions == 32
