"""Search by words: names are found as they are written, in the language of a dataset, whoever wrote the row and however."""

import asyncio
from typing import Any

import numpy as np
import pytest

from evervec.errors import EvervecError, Refused
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.languages import change_language
from evervec.pipeline.search.search import search
from evervec.pipeline.upkeep.sweep import make_words
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import EMBEDDABLES, MESSAGE, Embeddable
from evervec.store.words import filling
from tests.e2e.waiting import eventually
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.mirrors.mirroring import stored, until_true, worker
from tests.store.planting import edit, plant


async def told(resources: Resources, dataset: DatasetRef, texts: list[str]) -> None:
    """Messages with their vectors and their words."""
    await stored(resources, dataset, texts)
    await make_words(resources)


NAMES = [
    "max_slot_wal_keep_size is too small",
    "error[E0382]: use of moved value",
    "foo.bar() returned None",
    "see #846 for the reason",
    "the path is backend/evervec/errors.py today",
    "invokeErrorHandler was never called",
    "version 2.17.3 broke it",
    "HTTP 503 after a while",
    "__init__ takes no arguments",
    "don't panic",
]
QUESTIONS = [
    "max_slot_wal_keep_size",
    "E0382",
    "foo.bar()",
    "#846",
    "backend/evervec/errors.py",
    "invokeErrorHandler",
    "2.17.3",
    "503",
    "__init__",
    "don't panic",
]
PARTS = {"slot": 0, "bar": 2, "errors.py": 4, "error handler": 5, "evervec": 4}


@pytest.mark.parametrize("mode", ["auto", "words", "hybrid"])
async def test_a_name_finds_the_row_that_has_it(resources: Resources, dataset: DatasetRef, mode: str) -> None:
    await told(resources, dataset, NAMES + [f"filler {n} about nothing" for n in range(60)])
    for text, question in [*zip(NAMES, QUESTIONS, strict=True), *((NAMES[at], part) for part, at in PARTS.items())]:
        answer = await search(resources, question, mode=mode, k=5)
        assert answer[0].text == text, (question, [hit.text for hit in answer])
        assert answer.mode == ("words" if mode == "words" else "hybrid")
        assert answer[0].words == pytest.approx(1.0)


async def test_auto_decides_by_the_question(resources: Resources, dataset: DatasetRef) -> None:
    await told(resources, dataset, [f"the queue is full of jobs, number {n}" for n in range(300)])
    asked = {
        "the queue is full": "vector",  # every row has these
        "queue of jobs 17": "hybrid",
        "something else entirely": "vector",  # no row has any
        'the "queue is full"': "hybrid",
    }
    for question, mode in asked.items():
        assert (await search(resources, question)).mode == mode, question
    # an engine that is named compares vectors, and nothing else
    assert (await search(resources, "queue 17", engine="exact")).mode == "vector"
    with pytest.raises(Refused, match="no mode 'bm25'"):
        await search(resources, "queue", mode="bm25")


async def test_a_phrase_is_found_as_it_is_written(resources: Resources, dataset: DatasetRef) -> None:
    texts = [f"a disk {n} that is out of everything" for n in range(20)]
    await told(resources, dataset, [*texts, "we ran out of\ndisk last night, of all things"])
    answer = await search(resources, '"out of disk"', mode="words")
    assert answer[0].text.startswith("we ran out")
    assert (answer[0].words or 0) > 2 * (answer[1].words or 0)


async def test_the_nearest_row_keeps_its_words_behind_many_shorter_ones(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    question, shorter = "E0382 borrow", "E0382 borrow checker moved value closure thread"
    longer = f"{shorter} lifetime compiler"
    await told(resources, dataset, [f"{shorter} {n}" for n in range(80)] + [longer, question])
    await psql.execute(
        "UPDATE embeddings SET embedding = (SELECT embedding FROM embeddings JOIN messages m ON m.id = row_id WHERE content = $1) "
        "WHERE row_id = (SELECT id FROM messages WHERE content = $2)",
        question,
        longer,
    )
    await psql.execute("DELETE FROM messages WHERE content = $1", question)
    hit = (await search(resources, question, mode="hybrid"))[0]
    assert (hit.text, hit.words) == (longer, pytest.approx(1.0))
    assert hit.similarity == pytest.approx(1.0)


async def test_a_row_without_a_vector_is_found_by_its_words(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await told(resources, dataset, [f"filler {n}" for n in range(30)])
    row_id = await plant(psql, MESSAGE, dataset.id, "just written: E0382")
    await make_words(resources)
    for mode in ("words", "hybrid", "auto"):
        hit = (await search(resources, "E0382", mode=mode))[0]
        assert (hit.id, hit.similarity) == (row_id, None)
        assert 0 < hit.score <= 1
    await embed_dataset(resources, dataset.id)
    hit = (await search(resources, "E0382"))[0]
    assert hit.id == row_id and hit.similarity is not None


async def test_words_answer_when_nobody_embeds_the_question(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await told(resources, dataset, [*NAMES, *(f"filler {n}" for n in range(60))])
    fake.fail_next(100, Fault.ERROR_500)
    answer = await search(resources, "what is E0382")
    assert (answer.mode, answer[0].text) == ("words", NAMES[1])
    assert len(answer.unanswered) == 1 and "river/log" in answer.unanswered[0]
    with pytest.raises(EvervecError):
        await search(resources, "what is E0382", mode="hybrid")
    with pytest.raises(EvervecError):
        await search(resources, "something else entirely")


async def test_what_is_deleted_moved_or_foreign_is_no_hit(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    async with resources.database.transaction() as tx:
        other = await datasets.ensure(tx, "sea", "notes")
    kept = await plant(psql, MESSAGE, dataset.id, "E0382 stays")
    gone = await plant(psql, MESSAGE, dataset.id, "E0382 goes")
    edited = await plant(psql, MESSAGE, dataset.id, "E0382 is edited")
    moved = await plant(psql, MESSAGE, dataset.id, "E0382 moves")
    await psql.execute("DELETE FROM messages WHERE id = $1", gone)
    await edit(psql, MESSAGE, edited, "nothing of it is left")
    await psql.execute("UPDATE messages SET dataset_id = $1 WHERE id = $2", other.id, moved)
    assert not (await search(resources, "E0382", mode="words")).hits, "words of nobody's text"
    await make_words(resources)
    for mode in ("words", "hybrid"):
        answer = await search(resources, "E0382", dataset="log", mode=mode)
        assert [hit.id for hit in answer] == [kept], mode
    assert {hit.id for hit in await search(resources, "E0382", mode="words")} == {kept, moved}
    await psql.execute("UPDATE datasets SET deleted_at = now() WHERE id = $1", other.id)
    assert {hit.id for hit in await search(resources, "E0382", mode="words")} == {kept}


async def test_a_condition_holds_for_words_too(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await told(resources, dataset, [f"E0382 in row {n}" for n in range(100)])
    await psql.execute("UPDATE messages SET author = 'ada' WHERE content LIKE '%row 9_'")
    for mode in ("words", "hybrid"):
        answer = await search(resources, "E0382", where="author = 'ada'", mode=mode, k=50)
        assert {hit.text for hit in answer} == {f"E0382 in row {n}" for n in range(90, 100)}, mode


async def test_each_dataset_is_searched_in_its_language(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    async with resources.database.transaction() as tx:
        german = await datasets.ensure(tx, "river", "deutsch")
    english_row = await plant(psql, MESSAGE, dataset.id, "the houses were running")
    german_row = await plant(psql, MESSAGE, german.id, "die Häuser liefen schneller")
    for n in range(60):
        await plant(psql, MESSAGE, german.id, f"Füllung {n}")
    await make_words(resources)
    assert not (await search(resources, "Haus", dataset="deutsch", mode="words")).hits
    report = await change_language(resources, "deutsch", "german")
    assert (report.language, report.rows) == ("german", 61)
    assert [hit.id for hit in await search(resources, "Häusern", dataset="deutsch", mode="words")] == [german_row]
    both = await search(resources, "house Häuser", mode="words")
    assert {hit.id for hit in both} == {english_row, german_row}
    # written since, in the new language
    written = await plant(psql, MESSAGE, german.id, "noch ein Haus")
    await make_words(resources)
    assert {hit.id for hit in await search(resources, "Hauses", dataset="deutsch", mode="words")} == {
        german_row,
        written,
    }
    assert (await change_language(resources, "deutsch", None)).rows == 62
    assert not (await search(resources, "Häuser", dataset="deutsch", mode="words")).hits
    with pytest.raises(Refused, match=r"no language 'klingon'.*english.*german"):
        await change_language(resources, "deutsch", "klingon")


WORDS = "SELECT words::text FROM row_words WHERE kind = $1 AND row_id = $2"
DUE = "SELECT row_id FROM row_words WHERE words IS NULL ORDER BY row_id"
MADE = "SELECT evervec_words('english', $1)::text"


@pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda one: one.name)
async def test_every_way_to_write_a_row_keeps_its_words(
    resources: Resources, dataset: DatasetRef, psql: Any, embeddable: Embeddable
) -> None:
    row_id = await plant(psql, embeddable, dataset.id, "first text of it")
    assert await psql.fetchval(DUE) == row_id
    await make_words(resources)
    assert await psql.fetchval(WORDS, embeddable.kind, row_id) == await psql.fetchval(MADE, "first text of it")
    await psql.execute("SET session_replication_role = replica")
    await edit(psql, embeddable, row_id, "second text of it")
    await psql.execute("RESET session_replication_role")
    # at once, and in the writer's own transaction: nobody finds it by words that it has no more
    assert await psql.fetchval(WORDS, embeddable.kind, row_id) is None
    await make_words(resources)
    assert await psql.fetchval(WORDS, embeddable.kind, row_id) == await psql.fetchval(MADE, "second text of it")
    await psql.execute(f"DELETE FROM {embeddable.table}")
    assert await psql.fetchval("SELECT count(*) FROM row_words") == 0
    await plant(psql, embeddable, dataset.id, "third text of it")
    await psql.execute(f"TRUNCATE {embeddable.table} CASCADE")
    assert await psql.fetchval("SELECT count(*) FROM row_words") == 0


async def test_a_text_that_changes_while_its_words_are_made_is_due_again(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    """The writer's statement waits for the words of the old text, and then says that those of the new one are due."""
    row_id = await plant(psql, MESSAGE, dataset.id, "the old text")
    async with resources.database.transaction() as tx:
        await tx.fetch(filling.DUE_WORDS, None, 10)
        writing = asyncio.create_task(edit(psql, MESSAGE, row_id, "quite another E0382"))
        await eventually("the writer waits", lambda: waits_for_a_lock(resources))
        await tx.execute(filling.words_of_kind(MESSAGE), [row_id])
    await writing
    assert [row["row_id"] for row in await psql.fetch(DUE)] == [row_id]
    await make_words(resources)
    assert await psql.fetchval(WORDS, MESSAGE.kind, row_id) == await psql.fetchval(MADE, "quite another E0382")


async def waits_for_a_lock(resources: Resources) -> bool:
    async with resources.database.read() as tx:
        return bool(
            await tx.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
            )
        )


async def test_two_workers_make_the_words_of_different_rows(
    resources: Resources, dataset: DatasetRef, psql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "FILLED_AT_ONCE", 7)
    for n in range(30):
        await plant(psql, MESSAGE, dataset.id, f"E0382 number {n}")
    done = await asyncio.gather(*(filling.fill(resources.database, dataset.id) for _ in range(4)))
    assert sum(done) == 28
    await make_words(resources)
    assert len(await search(resources, "E0382", mode="words", k=50)) == 30


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\\ ' \" & | ! ( ) : * <->",
        "x" * 300_000,
        "é" * 5_000 + " ü",
        "𝒳 emoji 🎉 _ __ ___",
        "a.b/c-d_e'f" * 4_000,
    ],
    ids=["empty", "blank", "operators", "one long word", "accents", "symbols", "names in one"],
)
async def test_no_text_stops_the_words_or_a_question(
    resources: Resources, dataset: DatasetRef, psql: Any, text: str
) -> None:
    row_id = await plant(psql, MESSAGE, dataset.id, text)
    await make_words(resources)
    assert await psql.fetchval(WORDS, MESSAGE.kind, row_id) is not None
    if text.strip():
        await search(resources, text[:5_000], mode="words")


async def test_rows_that_no_trigger_saw_get_their_words(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    rows = [await plant(psql, MESSAGE, dataset.id, f"E0382 number {n}") for n in range(5)]
    await make_words(resources)
    await psql.execute("DELETE FROM row_words WHERE row_id = $1", rows[0])
    await psql.execute("UPDATE row_words SET words = '' WHERE row_id = $1", rows[1])
    await psql.execute(
        "INSERT INTO row_words (kind, row_id, dataset_id) SELECT kind, 10^9, dataset_id FROM row_words LIMIT 1"
    )

    async def touched(**how: Any) -> int:
        return sum([step.taken + step.removed async for step in filling.register(resources.database, batch=2, **how)])

    assert await touched() == 1  # the one that is missing
    assert await touched() == 0
    assert await touched(compare=True) == 5  # all but the one that is due, and one whose row is gone
    await make_words(resources)
    assert len(await search(resources, "E0382", mode="words")) == 5


async def test_the_mirror_and_words_answer_together(resources: Resources, dataset: DatasetRef) -> None:
    await told(resources, dataset, [*NAMES, *(f"filler {n}" for n in range(60))])
    async with worker(resources, mirror_poll_seconds=0.02) as one:
        await until_true(one, dataset)
        answer = await search(one, "E0382")
        assert (answer.engine, answer.mode, answer[0].text) == ("mirror", "hybrid", NAMES[1])
        assert np.all(np.diff([hit.score for hit in answer]) <= 0)
