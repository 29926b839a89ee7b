"""The vector ids of the rows that fulfil a condition."""

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.store.conditions.compiling import CheckedCondition
from evervec.store.conditions.fields import TABLES
from evervec.store.database.session import ReadTx
from evervec.store.schema.embeddables import Embeddable

BIG_ENDIAN_IDS = np.dtype(">i8")


def allowed_sql(embeddable: Embeddable, condition: CheckedCondition, space_id: int, values: list[object]) -> str:
    """Return the query for the vector ids of one kind: `$1` dataset ids, `$2` the limit, then the condition's values.

    They come as one value, 8 bytes an id: a hundred thousand records would take longer than the search.
    """
    return f"""
        SELECT string_agg(int8send(vector_id), '') FROM (
            SELECT e.vector_id FROM {TABLES[embeddable.kind]}
            JOIN embeddings e ON e.kind = {embeddable.kind:d} AND e.row_id = r.{embeddable.key} AND e.space_id = {space_id:d}
            WHERE e.dataset_id = ANY($1::uuid[]) AND e.embedding IS NOT NULL AND {condition.expression(embeddable, values)}
            LIMIT $2
        ) found
    """


async def vector_ids(
    tx: ReadTx, condition: CheckedCondition, dataset_ids: Sequence[UUID], *, space_id: int, most: int | None = None
) -> NDArray[np.int64]:
    """Return the ids `(m,)` of vectors in a space whose rows fulfil a condition, in no order; `most` a kind at most."""
    found: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for embeddable in condition.kinds:
        values: list[object] = [list(dataset_ids), most]
        sql = allowed_sql(embeddable, condition, space_id, values)
        packed = await tx.fetchval(sql, *values)
        found.append(np.frombuffer(packed or b"", BIG_ENDIAN_IDS).astype(np.int64))
    return np.concatenate(found)
