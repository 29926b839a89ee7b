"""Words of rows against PostgreSQL's own full-text search, and what is remembered of how many rows have them."""

import gc
import weakref
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from evervec.domain import ranking
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import MESSAGE
from evervec.store.words import filling, frequencies, matching
from evervec.store.words.frequencies import WordFrequencies
from tests.store.planting import plant

VOCABULARY = [
    "deploy",
    "deploys",
    "failed",
    "queue",
    "queues",
    "night",
    "the",
    "is",
    "503",
    "E0382",
    "max_slot",
    "foo.bar()",
    "a/b.py",
    "don't",
    "Näherung",
    "&",
    "'",
]
SENTENCES = some.lists(some.sampled_from(VOCABULARY), min_size=1, max_size=6).map(" ".join)

# what a row has to have for a question: one of its stems, in the text as it is
PLAIN = (
    "SELECT id FROM messages WHERE dataset_id = $1 AND to_tsvector('english', content) @@ "
    "(SELECT string_agg(quote_literal(word), ' | ')::tsquery FROM unnest(tsvector_to_array(to_tsvector('english', $2))) word)"
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=some.lists(SENTENCES, min_size=1, max_size=15), question=SENTENCES)
async def test_every_row_that_plain_full_text_search_finds_is_led_to(
    database: Database, dataset: DatasetRef, psql: Any, texts: list[str], question: str
) -> None:
    await psql.execute("DELETE FROM messages")
    for text in texts:
        await plant(psql, MESSAGE, dataset.id, text)
    while await filling.fill(database):
        continue
    async with database.read() as tx:
        asked = (await frequencies.words_of(tx, question, ["english"]))["english"]
        kept = WordFrequencies()
        rows, length = await kept.totals(tx, [dataset.id])
        counts = await kept.counts(tx, [dataset.id], asked)
        words = ranking.weigh("english", counts, rows, length)
        found = await matching.best(tx, words, [dataset.id], [MESSAGE], space_id=0, condition=None, most=100)
        wanted = {row["id"] for row in await tx.fetch(PLAIN, dataset.id, question)}
    assert rows == len(texts)
    assert wanted <= {row.id for row in found}
    # best first, and none that has no word of it
    assert all(row.matched > 0 for row in found)


async def test_counts_of_many_rows_are_remembered_and_no_others(
    database: Database, dataset: DatasetRef, psql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frequencies, "LEAST_REMEMBERED", 3)
    kept = WordFrequencies()

    async def counted() -> tuple[int, dict[str, int]]:
        while await filling.fill(database):
            continue
        async with database.read() as tx:
            return (await kept.totals(tx, [dataset.id]))[0], await kept.counts(tx, [dataset.id], ["queue", "night"])

    assert await counted() == (0, {"queue": 0, "night": 0})
    for _ in range(3):
        await plant(psql, MESSAGE, dataset.id, "queue")
    assert await counted() == (3, {"queue": 3, "night": 0})
    await plant(psql, MESSAGE, dataset.id, "queue at night")
    assert await counted() == (3, {"queue": 3, "night": 1})


async def test_what_is_remembered_holds_no_list_of_datasets(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 5,000 datasets in scope each list is half a megabyte, and 20,000 counts may be remembered."""
    monkeypatch.setattr(frequencies, "LEAST_REMEMBERED", 0)
    kept, dataset_ids = WordFrequencies(), [uuid4() for _ in range(10)]
    last = weakref.ref(dataset_ids[-1])
    async with database.read() as tx:
        await kept.totals(tx, dataset_ids)
        await kept.counts(tx, dataset_ids, ["queue"])
    del dataset_ids
    gc.collect()
    assert last() is None
