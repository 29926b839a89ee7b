"""What any other program does to the database: writes messages with plain SQL, and looks whether they are embedded."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain.protocols import Vectors
from evervec.embedders.local.embedder import LocalEmbedder
from tests.e2e.waiting import eventually
from tests.fakes.vectors import expected_vectors

MODEL, WIDTH = "embedder", 16

PENDING = "SELECT count(*) FROM embedding_status WHERE embedding_status = 'PENDING'"
EMBEDDED = "SELECT count(*) FROM embedding_status WHERE embedding_status = 'READY'"
LEASED = "SELECT count(*) FROM embed_work WHERE lease_until > now()"


async def make_dataset(psql: Any, project: str = "river", dataset: str = "log") -> UUID:
    """Make a dataset without our code."""
    project_id = await psql.fetchval("INSERT INTO projects (slug, name) VALUES ($1, $1) RETURNING id", project)
    made: UUID = await psql.fetchval(
        "INSERT INTO datasets (project_id, slug, name) VALUES ($1, $2, $2) RETURNING id", project_id, dataset
    )
    return made


async def write(psql: Any, dataset_id: UUID, count: int, *, word: str = "row") -> None:
    """Write `count` messages with texts of their own, in one transaction, with no hook, scored as noise."""
    await psql.execute(
        """
        INSERT INTO messages (dataset_id, chat, external_id, author, sent_at, content, signal, score, score_factors,
                              scored_revision)
        SELECT $1, 'telegram:' || $3::text, n, 'dev', now(), $3 || ' number ' || n, 'noise', 0, '{}', 1
        FROM generate_series(1, $2::int) n
        """,
        dataset_id,
        count,
        word,
    )


async def count(psql: Any, sql: str) -> int:
    """Return the number that a query answers."""
    return int(await psql.fetchval(sql))


async def of_the_fake(texts: Sequence[str]) -> Vectors:
    """Return the fake provider's vectors of these texts."""
    return expected_vectors(MODEL, texts, WIDTH)


async def of_the_local_model(texts: Sequence[str]) -> Vectors:
    """Return the local embedder's vectors of these texts."""
    embedder = LocalEmbedder()
    try:
        return await embedder.embed(texts)
    finally:
        await embedder.aclose()


async def assert_every_vector_is_right(
    psql: Any, expected: Callable[[Sequence[str]], Awaitable[Vectors]] = of_the_fake
) -> int:
    """Compare all messages with what the provider says of their text now; answers how many there are."""
    found = await psql.fetch(
        "SELECT m.content, e.embedding::text AS vector FROM messages m "
        "LEFT JOIN embeddings e ON e.kind = 1 AND e.row_id = m.id WHERE e.content_hash IS NOT NULL ORDER BY m.id"
    )
    missing = [row["content"] for row in found if row["vector"] is None]
    assert not missing, f"{len(missing)} without a vector, for example {missing[:3]}"
    stored = _parsed([row["vector"] for row in found])
    np.testing.assert_allclose(stored, await expected([row["content"] for row in found]), atol=1e-5)
    return len(found)


async def wait_until_nothing_is_pending(psql: Any, seconds: float = 120) -> float:
    """Wait until every row is embedded or given up; how long that took."""

    async def done() -> bool:
        return await count(psql, PENDING) == 0

    return await eventually("nothing pending", done, seconds)


async def wait_until_embedded(psql: Any, least: int, seconds: float = 90) -> None:
    """Wait until work is well under way."""

    async def begun() -> bool:
        return await count(psql, EMBEDDED) >= least

    await eventually(f"{least} rows embedded", begun, seconds)


def _parsed(vectors: list[str]) -> Vectors:
    joined = ",".join(vector.strip("[]") for vector in vectors)
    flat: NDArray[np.float32] = np.fromstring(joined, dtype=np.float32, sep=",")
    return flat.reshape(len(vectors), -1)
