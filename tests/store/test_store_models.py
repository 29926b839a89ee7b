"""The models: each selects from a migrated database, each column comes back, and the page about them tells the truth."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import Column, NullPool, event, func, inspect
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from evervec import models
from evervec.store.database.session import Database
from evervec.store.embeddings import neighbours
from evervec.store.schema.columns import Model
from evervec.store.schema.embeddables import MESSAGE
from evervec.store.schema.models import metadata
from evervec.store.spaces.spaces import default
from tests.store.conftest import BIG, SMALL, WIDTH
from tests.store.explaining import lines

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
PUBLIC = [getattr(models, name) for name in models.__all__]
BY_TABLE = {inspect(model).local_table: model for model in PUBLIC}
EVERY = sorted(Model.__subclasses__(), key=lambda model: model.__name__)
KINDS: dict[str, tuple[type, object]] = {
    "TEXT": (str, "a"),
    "UUID": (UUID, uuid4()),
    "BIGINT": (int, 7),
    "INTEGER": (int, 7),
    "SMALLINT": (int, 7),
    "xid8": (int, 7),
    "REAL": (float, 0.5),
    "DOUBLE PRECISION": (float, 1.5),
    "BOOLEAN": (bool, True),
    "BYTEA": (bytes, b"d" * 32),
    "VECTOR": (list, [1.0, 2.0]),
    "TSVECTOR": (str, "'a' 'b'"),
    "TEXT[]": (list, ["a"]),
    "REAL[]": (list, [1.0, 2.0]),
    "DATE": (date, date(2026, 5, 1)),
    "JSONB": (dict, {"a": [1]}),
    "TIMESTAMP WITH TIME ZONE": (datetime, datetime(2026, 5, 1, 12, tzinfo=UTC)),
}
"""By a column's type in PostgreSQL: its type in Python, and a value."""
CONSTRAINED: dict[str, object] = {
    "Atom.type": "insight",
    "AtomVersion.type": "insight",
    "BatchJob.job_type": "EMBEDDING",
    "BatchJob.status": "COMPLETED",
    "Embedding.embedded_hash": b"e" * 32,
    "EmbeddingSpace.chunk_tokens": 256,
    "EmbeddingSpace.metric": "cosine",
    "EmbeddingSpace.state": "active",
    "IndexRun.examples": [{"uri": "a"}],
    "IndexRun.mode": "delta",
    "IndexRun.state": "done",
    "LlmProvider.type": "gemini",
    "Message.signal": "noise",
}
"""What constraints allow in a column, where it is not any value."""


def kind(column: Column[Any]) -> tuple[type, object]:
    """Return the Python type of a column, and a value."""
    if column.name == "key" and column.type.compile(dialect=dialect()) == "JSONB":
        return list, [7]
    return KINDS[column.type.compile(dialect=dialect())]


def filled(model: type[Model]) -> Model:
    """Return a row with a value in every column that PostgreSQL does not fill by itself; no row of `sources` is needed."""
    columns = [column for column in columns_of(model) if column.name not in ("source_id", *made(model))]
    return model(**{c.name: CONSTRAINED.get(f"{model.__name__}.{c.name}", kind(c)[1]) for c in columns})


def columns_of(model: type[Model]) -> list[Column[Any]]:
    return list(inspect(model).local_table.columns)


def made(model: type[Model]) -> set[str]:
    """Return the columns that nobody else can fill: generated ones and identities."""
    return {c.name for c in columns_of(model) if c.computed is not None or (c.identity and c.identity.always)}


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    """Open a session of a program that is not Evervec."""
    engine = create_async_engine(f"postgresql+asyncpg{database_url.removeprefix('postgresql')}", poolclass=NullPool)
    async with AsyncSession(engine, expire_on_commit=False) as opened:
        yield opened
    await engine.dispose()


@pytest.fixture
async def stocked(library: str) -> AsyncIterator[AsyncSession]:
    """Open such a session on the library's rows."""
    engine = create_async_engine(f"postgresql+asyncpg{library.removeprefix('postgresql')}", poolclass=NullPool)
    async with AsyncSession(engine) as opened:
        yield opened
    await engine.dispose()


async def test_every_column_of_every_public_class_comes_back(session: AsyncSession) -> None:
    """A column of the wrong type, name or nullability would be refused, or come back as something else."""
    for table in [table for table in metadata.sorted_tables if table in BY_TABLE]:
        row = filled(BY_TABLE[table])
        session.add(row)
        await session.commit()
        wanted = {name: getattr(row, name) for name in set(type(row).model_fields) - made(type(row))}
        session.expunge_all()
        found = (await session.exec(select(type(row)))).one()
        assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize("model", EVERY, ids=lambda model: model.__name__)
def test_an_annotation_says_what_its_column_holds(model: type[Model]) -> None:
    for column in columns_of(model):
        annotation = model.model_fields[inspect(model).get_property_by_column(column).key].annotation
        told = set(get_args(annotation)) if isinstance(annotation, UnionType) else {annotation}
        assert (NoneType in told) == column.nullable, f"{model.__name__}.{column.name}"
        (said,) = told - {NoneType}
        stored = list if column.name == "examples" else kind(column)[0]
        assert (get_origin(said) or said) is stored, f"{model.__name__}.{column.name}"


def test_every_table_has_a_model_that_says_what_a_row_is() -> None:
    assert {inspect(model).local_table.fullname for model in EVERY} == set(metadata.tables)
    for model in EVERY:
        assert model.__doc__ and model.__doc__[0].isupper(), model.__name__


def example() -> dict[str, Any]:
    """Run the page's first blocks, and return what they define."""
    imports, code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[:2]
    namespace: dict[str, Any] = {}
    exec(compile(imports + code, str(PAGE), "exec"), namespace)
    return namespace


async def test_the_example_of_the_page_finds_the_nearest_messages_of_a_dataset(
    stocked: AsyncSession, reader: Database
) -> None:
    page = example()
    dataset = await page["dataset_id"](stocked, "p", "2")
    assert dataset == SMALL
    query = np.random.default_rng(7).standard_normal(WIDTH).astype(np.float32)
    async with reader.read() as tx:
        wanted = await neighbours.nearest(
            tx, MESSAGE, query, space_id=await default(tx), k=5, dataset_ids=[SMALL], exact=True
        )
    found = await page["nearest"](stocked, query.tolist(), dataset)
    assert [message.id for message, _ in found] == [hit.id for hit in wanted]
    assert [1 - distance for _, distance in found] == pytest.approx([hit.score for hit in wanted], abs=1e-3)
    assert {message.dataset_id for message, _ in found} == {SMALL}


async def test_the_example_of_the_page_reads_the_hnsw_index(stocked: AsyncSession) -> None:
    """The statement is explained as the driver gets it, parameters and all."""
    sent: list[tuple[str, Any]] = []
    connection = await stocked.connection()
    event.listen(
        connection.sync_connection, "before_cursor_execute", lambda *told: sent.append((told[2], told[3])), named=False
    )
    await example()["nearest"](stocked, [1.0] * WIDTH, BIG)
    (statement, values) = next((sql, values) for sql, values in sent if "halfvec" in sql.lower())
    for setting in ("enable_seqscan", "enable_bitmapscan"):  # 2,000 rows are few: PostgreSQL would compare them all
        await stocked.exec(select(func.set_config(setting, "off", True)))
    plan = lines((await connection.exec_driver_sql(f"EXPLAIN {statement}", values)).all())
    assert re.search(r"Index Scan using embeddings_hnsw_message_\d+", plan), plan
