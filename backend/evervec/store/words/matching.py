"""The rows that have the words of a question."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from evervec.domain.ranking import LENGTH_SHARE, MOST_LED_TO, SATURATION, QuestionWords
from evervec.store.conditions.compiling import CheckedCondition
from evervec.store.database.session import ReadTx
from evervec.store.schema.embeddables import BY_KIND, BY_NAME, Embeddable
from evervec.store.words.frequencies import query_of

MOST_MATCHED = 2 * MOST_LED_TO
"""Rows that are looked at for one question, where even its rarest words together are in more."""
RANKED_SPARE = 4

# Every row that the query leads to gets the weight of all words that it has. Only the best are looked up among the records,
# unless a condition may refuse most of them.
MATCHED = f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($4::text[]::tsquery[], $5::float8[]) AS u (query, weight)
), found AS MATERIALIZED (
    SELECT w.kind, w.row_id, w.words, w.length FROM row_words w
    WHERE w.words @@ $3::text::tsquery AND w.dataset_id = ANY($1::uuid[]) AND w.kind = ANY($2::smallint[]) LIMIT {MOST_MATCHED}
), weighed AS (
    SELECT f.kind, f.row_id, f.length, (SELECT sum(a.weight) FROM asked a WHERE f.words @@ a.query) AS matched FROM found f
), ranked AS MATERIALIZED (
    SELECT * FROM weighed ORDER BY matched / (1 + {SATURATION} * (1 - {LENGTH_SHARE} + {LENGTH_SHARE} * length / $6::float8)) DESC, kind, row_id
    LIMIT {{looked_up}}
)
SELECT e.vector_id, e.kind, e.row_id, r.matched, r.length
FROM ranked r JOIN embeddings e ON e.kind = r.kind AND e.row_id = r.row_id AND e.space_id = {{space}}
WHERE {{only}}
ORDER BY r.matched / (1 + {SATURATION} * (1 - {LENGTH_SHARE} + {LENGTH_SHARE} * r.length / $6::float8)) DESC, e.kind, e.row_id
LIMIT $7
"""

# of rows that are hits already, however many others have more of the words
MATCHED_ROWS = """
SELECT w.kind, w.row_id, w.length,
       (SELECT sum(a.weight) FROM unnest($3::text[]::tsquery[], $4::float8[]) AS a (query, weight) WHERE w.words @@ a.query) AS matched
FROM row_words w JOIN unnest($1::smallint[], $2::bigint[]) AS r (kind, row_id) ON w.kind = r.kind AND w.row_id = r.row_id
WHERE w.words IS NOT NULL AND w.dataset_id = ANY($5::uuid[])
"""


@dataclass(frozen=True)
class MatchedRow:
    """A row with words of the question: the weight of those that it has, and how many different words it has at all.

    `vector_id` is None where it is known already.
    """

    vector_id: int | None
    kind: str
    id: int
    matched: float
    length: int


async def best(
    tx: ReadTx,
    words: QuestionWords,
    dataset_ids: Sequence[UUID],
    kinds: Sequence[Embeddable],
    *,
    space_id: int,
    condition: CheckedCondition | None,
    most: int,
) -> list[MatchedRow]:
    """Return the rows with the most weight of a question's words, best first; fewer than `most` only if there are no more."""
    if not words.leading:
        return []
    values: list[object] = [
        list(dataset_ids),
        [one.kind for one in kinds],
        leading_query(words),
        [query_of(word) for word in words.weights],
        list(words.weights.values()),
        words.average_length,
        most,
    ]
    only = "true" if condition is None else condition.of_record(values, kinds)
    looked_up = MOST_MATCHED if condition is not None else RANKED_SPARE * most
    sql = MATCHED.replace("{looked_up}", f"{looked_up:d}").replace("{space}", f"{space_id:d}").replace("{only}", only)
    rows = await tx.fetch(sql, *values)
    return [
        MatchedRow(row["vector_id"], BY_KIND[row["kind"]].name, row["row_id"], row["matched"] or 0.0, row["length"])
        for row in rows
    ]


async def of_rows(
    tx: ReadTx, words: QuestionWords, dataset_ids: Sequence[UUID], keys: Sequence[tuple[str, int]]
) -> list[MatchedRow]:
    """Return what some rows, by kind and id, have of a question's words; those of other datasets are left out."""
    values: list[object] = [
        [BY_NAME[kind].kind for kind, _ in keys],
        [row_id for _, row_id in keys],
        [query_of(word) for word in words.weights],
        list(words.weights.values()),
        list(dataset_ids),
    ]
    return [
        MatchedRow(None, BY_KIND[row["kind"]].name, row["row_id"], row["matched"] or 0.0, row["length"])
        for row in (await tx.fetch(MATCHED_ROWS, *values) if keys else ())
    ]


def leading_query(words: QuestionWords) -> str:
    """Return the text of the query that leads to rows: any of the rare words, or all words."""
    return " | ".join(f"({' & '.join(query_of(word) for word in together)})" for together in words.leading)
