"""What the tests of attached tables share: a table of somebody else, its attachment, and its rows' documents and vectors."""

from typing import Any
from uuid import UUID

from evervec.pipeline.attached.attach import Attached, AttachOptions, attach
from evervec.pipeline.attached.waiting import embed_all, until_taken_in
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import describe

ARTICLES = """
CREATE TABLE public.articles (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, body text, author int, tenant text
);
INSERT INTO public.articles (title, body, author, tenant)
SELECT 'Title ' || n, 'The body of number ' || n, n % 7, 't' || n % 3 FROM generate_series(1, {rows}) n
"""

TEXT = "title || E'\\n\\n' || coalesce(body, '')"

STATE = """
SELECT d.uri, s.slug AS dataset, string_agg(c.content, '' ORDER BY c.ordinal) AS text, d.key::text, d.fields::text,
       bool_and(e.embedded_hash = e.content_hash) AS embedded
FROM evervec.documents d JOIN evervec.datasets s ON s.id = d.dataset_id
LEFT JOIN evervec.chunks c ON c.document_id = d.id AND c.space_id IN (0, s.space_id)
LEFT JOIN evervec.embeddings e ON e.kind = 4 AND e.row_id = c.id AND e.space_id = s.space_id
WHERE d.key IS NOT NULL AND s.deleted_at IS NULL GROUP BY d.id, s.slug ORDER BY d.uri
"""


async def open_articles(psql: Any, rows: int) -> None:
    """Make the table of articles."""
    await psql.execute(ARTICLES.format(rows=rows))


async def attached(resources: Resources, table: str = "public.articles", **said: Any) -> Attached:
    """Attach a table, by default the one of articles, without taking anything in."""
    chosen = {name: said.pop(name) for name in ("newest_first", "rows_per_second", "replace") if name in said}
    where = {} if "dataset_column" in said else {"dataset": "articles"}
    values = {"project": "app"} | where | ({} if "columns" in said else {"text": TEXT}) | said
    return await attach(resources, describe(table=table, **values), AttachOptions(**chosen))


async def settled(resources: Resources, source_id: UUID | None) -> None:
    """Take everything in that waits, and embed it."""
    assert source_id is not None
    progress = await until_taken_in(resources, source_id)
    assert progress.error is None, progress
    await embed_all(resources, source_id)


async def state(psql: Any) -> dict[str, Any]:
    """Return dataset, text, key, fields and whether it is embedded, by uri."""
    return {row["uri"]: row for row in await psql.fetch(STATE)}


async def require_true(psql: Any, text: str = TEXT, where: str = "true") -> None:
    """Require that every row of the articles, and nothing else, has a document of its present text, embedded."""
    found = {uri: (row["text"], row["embedded"]) for uri, row in (await state(psql)).items()}
    rows = await psql.fetch(f"SELECT id, {text} AS text FROM public.articles WHERE {where}")
    assert found == {
        f"public.articles/{row['id']}": (row["text"] or None, True if row["text"] else None) for row in rows
    }
