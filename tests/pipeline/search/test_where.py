"""Searches with conditions: every engine returns what a plain walk over the rows says, and never fewer than there are."""

from typing import Any

import orjson
import pytest

from evervec.errors import ConditionError
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search, similar
from evervec.store import datasets
from evervec.store.conditions import fields
from evervec.store.conditions.fields import FieldType
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import BY_KIND
from tests.pipeline.mirrors.mirroring import stored, until_true, worker
from tests.pipeline.search.plain_rows import PLAIN, START, Chance, plain_rows, searched


@pytest.mark.parametrize("seed", range(2))
async def test_every_engine_finds_exactly_the_rows_that_fulfil_a_condition(
    resources: Resources, dataset: DatasetRef, psql: Any, seed: int
) -> None:
    chance = Chance(seed)
    for number in range(25):
        await chance.plant(psql, dataset, number)
    await embed_dataset(resources, dataset.id)
    rows = await plain_rows(psql)
    async with worker(resources, mirror_poll_seconds=0.02) as one:
        await until_true(one, dataset)
        some = 0
        for _ in range(60):
            condition = chance.tree(rows)
            wanted = {
                (BY_KIND[row.kind].name, row.id) for row in rows if searched(condition, row) and row.fulfils(condition)
            }
            some += 0 < len(wanted) < len(rows)
            for engine in ("auto", "mirror", "exact", "pgvector"):
                answer = await search(one, "message 7", where=condition, k=500, engine=engine)
                found = {(hit.kind, hit.id) for hit in answer.hits}
                assert found == wanted, (engine, answer.engine, condition, found ^ wanted)
        assert some > 20, "conditions that all or none fulfil prove little"


async def test_a_mirror_answers_within_a_second_what_fulfils_a_condition_since(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await stored(resources, dataset, [f"row {n}" for n in range(50)])
    async with worker(resources, mirror_poll_seconds=0.02) as one:
        await until_true(one, dataset)
        assert not (await search(one, "row 7", where="author = 'ada'")).hits
        async with psql.transaction():
            xid = int(await psql.fetchval("SELECT pg_current_xact_id()::text"))
            await psql.execute("UPDATE messages SET author = 'ada' WHERE content = 'row 7'")
        # the watermark that is asked for makes it look again
        answer = await search(one, "row 7", where="author = 'ada'", min_watermark=xid, wait_seconds=30)
        assert [hit.text for hit in answer] == ["row 7"]
        assert answer.engine == "mirror"
        assert int(answer.watermark) > xid
        # what fulfils it no more is never a hit, however long the filter is kept
        await psql.execute("UPDATE messages SET author = 'bob'")
        assert not (await search(one, "row 7", where="author = 'ada'")).hits


async def test_similar_rows_and_their_origin(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await stored(resources, dataset, ["twin", "twin", "stranger"])
    first, second, third = [row["id"] for row in await psql.fetch("SELECT id FROM messages ORDER BY id")]
    await psql.execute("UPDATE messages SET author = 'ada', sent_at = $1 WHERE id = $2", START, third)
    answer = await similar(resources, "message", first, where='author = "ada"')
    assert [hit.id for hit in answer] == [third]
    origin = answer[0].origin
    assert origin is not None and (origin.author, origin.chat, origin.sent_at) == ("ada", "chat", START)
    assert {hit.id for hit in await similar(resources, "message", first)} == {second, third}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("autor = 'ada'", "has a field 'autor'. Did you mean 'author'"),
        ("author = 3", "author is compared with 3, but it holds a text: give a text in quotes"),
        ("author > true", "holds a text"),
        ("sent_at > 'yesterday'", "sent_at is compared with 'yesterday', but it holds a time"),
        ("sent_at > 3", "holds a time"),
        ("confidence = 'high'", "holds a number"),
        ("confidence = true", "holds a number"),
        ("id STARTS WITH '1'", "holds a whole number"),
        ("id IN (1, 'x')", "holds a whole number"),
        ("fields = 3", "write fields.name"),
        ("fields.price > true", "come in no order"),
        ('"author" = 3', "column 1"),
        ({"op": "eq", "field": "r.id; DROP TABLE messages", "value": 1}, "has a field 'r.id; DROP TABLE messages'"),
    ],
)
async def test_a_condition_that_fits_no_field_is_refused(
    resources: Resources, dataset: DatasetRef, where: Any, said: str
) -> None:
    with pytest.raises(ConditionError, match=said):
        await search(resources, "anything", where=where)


async def test_values_are_never_part_of_the_sql(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await stored(resources, dataset, ["one", "two"])
    wild = ["'; DROP TABLE messages; --", "$1", "%s", "{0}", "\\", "E'\\x00'", '"', "ａ"]
    for text in wild:
        await psql.execute("UPDATE messages SET author = $1 WHERE content = 'one'", text)
        for where in (
            {"op": "eq", "field": "author", "value": text},
            {"op": "in", "field": "author", "values": [text, "x"]},
            {"op": "starts", "field": "author", "value": text},
        ):
            assert [hit.text for hit in await search(resources, "one", where=where)] == ["one"]
        # as a path in JSON nothing is found, and nothing is run
        assert not (await search(resources, "one", where={"op": "eq", "field": f"fields.{text}", "value": 1})).hits


async def test_fields_of_an_attached_table_need_no_prefix(resources: Resources, psql: Any, dataset: DatasetRef) -> None:
    async with resources.database.transaction() as tx:
        other = await datasets.ensure(tx, "river", "shop")
    spec = {"table": {"fields": ["price"]}}
    source = await psql.fetchval(
        "INSERT INTO sources (project_id, name, type, spec) VALUES ($1, 'shop', 'attached', $2) RETURNING id",
        other.project_id,
        orjson.dumps(spec).decode(),
    )
    await psql.execute("UPDATE datasets SET source_id = $1 WHERE id = $2", source, other.id)
    for number in range(3):
        document = await psql.fetchval(
            "INSERT INTO documents (dataset_id, uri, key, fields) VALUES ($1, $2, $3, $4) RETURNING id",
            other.id,
            f"public.products/{number}",
            f"[{number}]",
            orjson.dumps({"price": 10 * number}).decode(),
        )
        await psql.execute(
            "INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text) VALUES ($1, $2, 0, 'c', $3)",
            other.id,
            document,
            f"product {number}",
        )
    await embed_dataset(resources, other.id)
    answer = await search(resources, "product", where="price >= 10 AND price < 20")
    assert [(hit.table, hit.key, hit.fields) for hit in answer] == [("public.products", [1], {"price": 10})]
    with pytest.raises(ConditionError, match="has a field 'price'"):
        await search(resources, "product", dataset="log", where="price >= 10")


def test_every_field_has_a_type_that_the_plain_rows_show() -> None:
    for kind, known in fields.SEARCH_FIELDS.items():
        sql = PLAIN[BY_KIND[kind]]
        assert all(name in sql for name in known), f"{BY_KIND[kind].name} is not compared in full"
        assert {field.type for field in known.values()} <= set(FieldType)
