"""Projects and datasets: found by slug or UUID, created on first use, counted, deleted."""

import re
from dataclasses import dataclass
from uuid import UUID

from evervec.domain.naming import slug
from evervec.errors import UnknownDatasetError, UnknownProjectError
from evervec.store.database.session import ReadTx, Tx
from evervec.store.schema.embeddables import PURGED_TABLES
from evervec.store.schema.predicates import PENDING

UUID_TEXT = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)


@dataclass(frozen=True)
class DatasetRef:
    """A live dataset of a live project, with the space that is searched, the provider that embeds for it alone, and the language

    of its words (None: they are not searched)."""

    id: UUID
    project_id: UUID
    project: str
    slug: str
    space_id: int
    provider_id: UUID | None = None
    language: str | None = None

    @property
    def name(self) -> str:
        """Return what people call it, `project/dataset`."""
        return f"{self.project}/{self.slug}"


LIVE = """
SELECT d.id, d.project_id, p.slug AS project, d.slug, d.space_id, d.provider_id, d.language
FROM datasets d JOIN projects p ON p.id = d.project_id
WHERE d.deleted_at IS NULL AND p.deleted_at IS NULL
"""


# projects are locked before datasets, everywhere
THERE = LIVE + "AND p.slug = $1 AND d.slug = $2 AND ($3::text IS NULL OR p.root_path = $3) FOR KEY SHARE OF p, d"


async def ensure_project(tx: Tx, project: str, *, root_path: str | None = None) -> UUID:
    """Return the id of the project with this name; create it, or restore a deleted one. Raises `InvalidNameError`."""
    project_id: UUID = await tx.fetchval(
        # The update is there so that RETURNING also answers for an existing project.
        "INSERT INTO projects (slug, name, root_path) VALUES ($1, $2, $3) ON CONFLICT (slug) DO UPDATE "
        "SET deleted_at = NULL, root_path = coalesce(EXCLUDED.root_path, projects.root_path) RETURNING id",
        slug("Project", project),
        project,
        root_path,
    )
    return project_id


async def ensure(tx: Tx, project: str, dataset: str, *, root_path: str | None = None) -> DatasetRef:
    """Return the dataset with this name; create it and its project, or restore deleted ones.

    Raises `InvalidNameError` for a name without a letter or digit.
    """
    # nearly always it exists: then nothing is written, and no lock is waited for
    found = await tx.fetchrow(THERE, slug("Project", project), slug("Dataset", dataset), root_path)
    if found is not None:
        return DatasetRef(*found)
    project_id = await ensure_project(tx, project, root_path=root_path)
    row = await tx.fetchrow(
        "INSERT INTO datasets (project_id, slug, name) VALUES ($1, $2, $3) ON CONFLICT (project_id, slug) "
        "DO UPDATE SET deleted_at = NULL RETURNING id, space_id, provider_id, language",
        project_id,
        slug("Dataset", dataset),
        dataset,
    )
    assert row is not None  # it is inserted or updated
    return DatasetRef(row[0], project_id, slug("Project", project), slug("Dataset", dataset), *row[1:])


async def live(tx: ReadTx) -> list[DatasetRef]:
    """Return all live datasets, by project and name."""
    return [DatasetRef(*row) for row in await tx.fetch(LIVE + " ORDER BY p.slug, d.slug")]


async def deleted(tx: ReadTx) -> list[UUID]:
    """Return the datasets that were marked deleted, themselves or with their project."""
    rows = await tx.fetch(
        "SELECT d.id FROM datasets d JOIN projects p ON p.id = d.project_id "
        "WHERE d.deleted_at IS NOT NULL OR p.deleted_at IS NOT NULL"
    )
    return [row["id"] for row in rows]


async def by_id(tx: ReadTx, dataset_id: UUID) -> DatasetRef | None:
    """Return a live dataset, or None if it does not exist or it or its project was deleted."""
    row = await tx.fetchrow(LIVE + " AND d.id = $1", dataset_id)
    return None if row is None else DatasetRef(*row)


async def by_slug(tx: ReadTx, project: str, dataset: str) -> DatasetRef | None:
    """Return a live dataset by the slugs of its project and itself, or None."""
    row = await tx.fetchrow(LIVE + " AND p.slug = $1 AND d.slug = $2", project, dataset)
    return None if row is None else DatasetRef(*row)


async def find(tx: ReadTx, name: str | None, project: str | None = None) -> list[DatasetRef]:
    """Return datasets by slug, `project/slug` or UUID, in one project or in all; without a name, every live one.

    Raises `UnknownDatasetError` or `UnknownProjectError`.
    """
    every = await live(tx)
    if project is not None and project not in {d.project for d in every}:
        raise UnknownProjectError(project=project, known=_listed({d.project for d in every}))
    scope = [d for d in every if project in (None, d.project)]
    if name is None:
        return scope
    if UUID_TEXT.match(name):
        found = [d for d in scope if d.id == UUID(name)]
    else:
        found = [d for d in scope if name in (d.slug, f"{d.project}/{d.slug}")]
    if not found:
        raise UnknownDatasetError(dataset=name, known=_listed({f"{d.project}/{d.slug}" for d in scope}))
    return found


async def remove(tx: Tx, dataset_id: UUID) -> None:
    """Mark a dataset deleted: after the commit nothing claims, writes or finds its rows."""
    await tx.execute("UPDATE datasets SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL", dataset_id)


DROP_SPACES = """
UPDATE dataset_spaces SET state = 'dropped', seen_xid = NULL WHERE dataset_id = $1 AND state <> 'dropped'
"""


async def purge(tx: Tx, dataset_id: UUID, *, limit: int) -> int:
    """Delete up to `limit` rows of a deleted dataset with their vectors, and return how many.

    Return 0 if none is left, or if the dataset was restored.
    """
    deleted = await tx.fetchval(
        "SELECT true FROM datasets d JOIN projects p ON p.id = d.project_id WHERE d.id = $1 "
        "AND (d.deleted_at IS NOT NULL OR p.deleted_at IS NOT NULL) FOR NO KEY UPDATE OF d",
        dataset_id,
    )
    if not deleted:
        return 0
    await tx.execute("DELETE FROM index_runs WHERE dataset_id = $1", dataset_id)
    await tx.execute(DROP_SPACES, dataset_id)
    for table in PURGED_TABLES:
        removed: int = await tx.fetchval(
            f"WITH gone AS (DELETE FROM {table} WHERE id = ANY(ARRAY(SELECT id FROM {table} WHERE dataset_id = $1 LIMIT $2)) "
            "RETURNING 1) SELECT count(*) FROM gone",
            dataset_id,
            limit,
        )
        if removed:
            return removed
    return 0


PENDING_BY_PROJECT = f"""
WITH rows AS (
    SELECT s.id AS dataset_id, waiting.pending FROM datasets s CROSS JOIN LATERAL (
        SELECT count(*) AS pending FROM embeddings e WHERE e.dataset_id = s.id AND e.space_id = s.space_id AND e.{PENDING}
    ) waiting
    UNION ALL SELECT dataset_id, count(*) FROM documents WHERE content IS NOT NULL GROUP BY dataset_id
    UNION ALL SELECT dataset_id, count(*) FROM documents WHERE recipe < $1 AND content IS NULL GROUP BY dataset_id
    UNION ALL SELECT dataset_id, count(*) FROM documents WHERE recipe > $1 AND content IS NULL GROUP BY dataset_id
    UNION ALL SELECT d.dataset_id, count(*) FROM chunk_work w JOIN documents d ON d.id = w.document_id
        JOIN datasets s ON s.id = d.dataset_id AND s.space_id = w.space_id GROUP BY d.dataset_id
)
SELECT p.id, p.root_path, coalesce(sum(r.pending), 0)::bigint AS pending
FROM projects p
LEFT JOIN datasets d ON d.project_id = p.id AND d.deleted_at IS NULL
LEFT JOIN rows r ON r.dataset_id = d.id
WHERE p.deleted_at IS NULL
GROUP BY p.id ORDER BY pending, p.created_at, p.id
"""


async def pending_by_project(tx: ReadTx, recipe: str) -> list[tuple[UUID, str | None, int]]:
    """Return `(project id, root path, pending)` of every live project, smallest `pending` first.

    `pending` counts rows to embed and documents to chunk: those that are a text without chunks, or that were chunked by
    another recipe than this one.
    """
    return [(row["id"], row["root_path"], row["pending"]) for row in await tx.fetch(PENDING_BY_PROJECT, recipe)]


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none yet"
