"""What the tests of the batch lane share: a provider with a batch API, rows that wait, the way to the end, and the truth."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from pydantic import SecretStr

from evervec.domain.batch import BatchClient, intent_of
from evervec.embedders.gemini import batch as gemini_batch
from evervec.embedders.openai import batch as openai_batch
from evervec.embedders.vectors import PROBE_TEXTS
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.batch.poll import PollResult
from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.claimed_rows import HEALTH_TEXTS
from evervec.pipeline.embedding.health import KNOWN_TEXT
from evervec.pipeline.resources import Resources
from evervec.store import secrets
from evervec.store.providers import ProviderDraft
from tests.fakes.jobs import ENDED, Job, State
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import expected_vectors

TYPES = ("gemini", "openai")
"""Who has a batch API."""

MODEL, API_KEY, PRICE = "embedder", "the-key-that-is-a-secret", 0.15

OPEN = "SELECT count(*) FROM batch_jobs WHERE cleaned_at IS NULL"
LEFT = "SELECT (SELECT count(*) FROM batch_items) + (SELECT count(*) FROM embed_work)"
STORED = """
SELECT m.content, e.embedding::text AS vector FROM messages m JOIN datasets d ON d.id = m.dataset_id
LEFT JOIN embeddings e ON e.kind = 1 AND e.row_id = m.id AND e.space_id = d.space_id ORDER BY m.id
"""

WITNESS = """
CREATE TABLE witness (vector_id bigint);
CREATE FUNCTION witnessed() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO witness VALUES (NEW.vector_id); RETURN NULL; END';
CREATE TRIGGER witness AFTER UPDATE ON embeddings FOR EACH ROW
    WHEN (NEW.embedded_at IS DISTINCT FROM OLD.embedded_at) EXECUTE FUNCTION witnessed();
"""

CLIENTS = {"gemini": gemini_batch, "openai": openai_batch}


@asynccontextmanager
async def batched(bare: Resources, fake: FakeProvider, type_: str, **changed: Any) -> AsyncIterator[Resources]:
    """`bare` with the fake as its active provider, of a type that has a batch API; `changed` are settings."""
    key = secrets.new_key()
    clients = ProviderClients(key)
    resources = given(replace(bare, clients=clients), secret_key=SecretStr(key), **changed)
    try:
        await add(resources, fake, type_)
        yield resources
    finally:
        await clients.aclose()


async def add(resources: Resources, fake: FakeProvider, type_: str, *, name: str | None = None, **how: Any) -> None:
    """Add the fake as a provider, called like its type unless `name` says otherwise."""
    activate: bool = how.pop("activate", True)
    fields: dict[str, Any] = {"model": MODEL, "api_key": API_KEY, "usd_per_million_tokens": PRICE, **how}
    draft = ProviderDraft(name or type_, type_, base_url=fake.url, **fields)
    await providers.add(resources, draft, activate=activate)


async def limited(resources: Resources, patch: pytest.MonkeyPatch, **limits: int | None) -> None:
    """Give the provider's batch API other limits than the real one has."""
    type_ = (await resources.provider()).type
    module, name = CLIENTS[type_], f"{type_.upper()}_BATCH_LIMITS"
    patch.setattr(module, name, replace(getattr(module, name), **limits))


def given(resources: Resources, **changed: Any) -> Resources:
    """Return the resources with other settings."""
    return replace(resources, settings=resources.settings.model_copy(update=changed))


def numbered(count: int, word: str = "row") -> list[str]:
    """So many texts, each its own."""
    return [f"{word} number {n}" for n in range(1, count + 1)]


async def planted(psql: Any, dataset_id: UUID, texts: Sequence[str]) -> list[int]:
    """Messages that wait to be embedded, written in one statement by any other program; answers their row ids."""
    found = await psql.fetch(
        "INSERT INTO messages (dataset_id, chat, external_id, author, content) SELECT $1, 'chat', "
        "gen_random_uuid()::text, 'dev', t FROM unnest($2::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n RETURNING id",
        dataset_id,
        list(texts),
    )
    return [row["id"] for row in found]


async def to_the_end(resources: Resources, psql: Any, *, looks: int = 12) -> list[PollResult]:
    """Look at the provider until no job is open or to be cleaned up after; what each look brought."""
    manager, seen = BatchManager(resources), list[PollResult]()
    while await psql.fetchval(OPEN):
        assert len(seen) < looks, f"still open after {looks} looks: {seen[-1]}"
        seen.append(await manager.check_and_sync())
    return seen


async def client_of(resources: Resources) -> BatchClient:
    """Return the client that the pipeline itself uses."""
    return resources.clients.batch_client(await resources.provider())


async def edit(psql: Any, row_id: int, text: str) -> None:
    """Give a message another text."""
    await psql.execute("UPDATE messages SET content = $2 WHERE id = $1", row_id, text)


async def flush_and_sync(resources: Resources, psql: Any) -> int:
    """Send what waits and take it in; how many rows that were."""
    flushed = await BatchManager(resources).flush_queue()
    await to_the_end(resources, psql)
    return flushed.rows


def before(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, do: Callable[[], Awaitable[Any]], *, nth: int = 1
) -> None:
    """Do something before the nth call of a function, which is called all the same."""
    function, calls = getattr(owner, name), 0

    async def called(*values: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            await do()
        return await function(*values, **named)

    monkeypatch.setattr(owner, name, called)


async def states(psql: Any) -> Counter[str]:
    """How many rows have which embedding status."""
    rows = await psql.fetch("SELECT embedding_status AS name, count(*) AS n FROM embedding_status GROUP BY 1")
    return Counter({row["name"]: row["n"] for row in rows})


@asynccontextmanager
async def written_once(psql: Any) -> AsyncIterator[None]:
    """No row gets a vector twice while the block lasts: a trigger of the test writes down each."""
    await psql.execute(WITNESS)
    yield
    twice = await psql.fetch("SELECT vector_id, count(*) FROM witness GROUP BY 1 HAVING count(*) > 1")
    assert await psql.fetchval("SELECT count(*) FROM witness") > 0, "nothing was written at all"
    assert twice == [], f"{len(twice)} rows were written more than once, for example {twice[:3]}"


async def assert_every_vector_is_right(psql: Any, width: int = 32, model: str = MODEL) -> int:
    """Compare all messages with what the provider says of their text now; answers how many there are."""
    found = await psql.fetch(STORED)
    missing = [row["content"] for row in found if row["vector"] is None]
    assert not missing, f"{len(missing)} of {len(found)} without a vector, for example {missing[:3]}"
    stored = [np.fromstring(row["vector"].strip("[]"), dtype=np.float32, sep=",") for row in found]
    np.testing.assert_allclose(stored, expected_vectors(model, [row["content"] for row in found], width), atol=1e-5)
    return len(found)


async def assert_nothing_is_left(psql: Any, fake: FakeProvider, *, twins: Sequence[Job] = ()) -> None:
    """No item and no lease here, no file and no job at the provider but cancelled ones that were second of an intent."""
    assert await psql.fetchval(LEFT) == 0, await psql.fetch("SELECT * FROM embed_work LIMIT 3")
    assert await psql.fetchval(OPEN) == 0
    assert list(fake.batches.files) == []
    jobs = [job for job in fake.batches.jobs if job not in twins]
    assert [job.summary() for job in jobs if job.state not in (*ENDED, State.CANCELLING)] == []
    # OpenAI keeps the record of a job for ever
    assert [job.summary() for job in jobs if job.protocol == "gemini" and not job.deleted] == []


async def assert_one_job_per_intent(psql: Any, fake: FakeProvider) -> None:
    """Each intent here has exactly one job there, and each job there an intent here."""
    intents = [intent_of(job.display_name) or UUID(job.metadata["intent_id"]) for job in fake.batches.jobs]
    assert sorted(intents) == sorted(row["id"] for row in await psql.fetch("SELECT id FROM batch_jobs"))


def paid(fake: FakeProvider) -> Counter[str]:
    """How often each text was bought, online and in jobs together, but for those that test a provider."""
    return online(fake) + fake.batches.texts_paid()


NOBODYS = {*PROBE_TEXTS, *HEALTH_TEXTS, KNOWN_TEXT}
"""Texts of no row: they only test whether a provider answers, and as ever."""


def online(fake: FakeProvider) -> Counter[str]:
    """How often each text was sent to be embedded at once, but for those that test a provider."""
    return Counter({text: times for text, times in fake.texts_sent().items() if text not in NOBODYS})


def assert_paid_once(fake: FakeProvider, texts: Sequence[str]) -> None:
    """Each of these texts was bought once, and no other."""
    bought = paid(fake)
    assert {text: times for text, times in bought.items() if times > 1} == {}
    assert sorted(bought) == sorted(texts)
