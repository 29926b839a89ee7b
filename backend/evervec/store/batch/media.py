"""Images and sounds: saved as documents without a text, claimed by the job that describes them, described or failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson

from evervec.domain.documents.document import IncomingDocument, Media
from evervec.store import document_records
from evervec.store.database.session import ReadTx, Tx

MOST_DESCRIBING_JOBS = 2
"""How many jobs may fail to describe a file."""


@dataclass(frozen=True)
class WaitingFile:
    """A file that waits for a description. `content_hash` is the SHA-256 of its bytes when they were last read."""

    document_id: int
    path: str
    media_type: str
    content_hash: bytes


@dataclass(frozen=True)
class RequestedFile:
    """A file of a job with its present document; without one if that was deleted or its file was replaced."""

    document_id: int
    key: str
    content_hash: bytes
    dataset_id: UUID | None = None
    document: IncomingDocument | None = None


UNDESCRIBED = "m.described_hash IS DISTINCT FROM m.content_hash"

# a document that became a text meanwhile needs no description
OF_LIVE_DATASET = """
EXISTS (SELECT FROM documents d JOIN datasets s ON s.id = d.dataset_id JOIN projects p ON p.id = s.project_id
        WHERE d.id = m.document_id AND d.format IN ('image', 'audio') AND s.deleted_at IS NULL AND p.deleted_at IS NULL)
"""
CLAIMABLE_FILES = (
    f"{UNDESCRIBED} AND m.failed_hash IS DISTINCT FROM m.content_hash AND m.job_id IS NULL AND {OF_LIVE_DATASET}"
)


# --- add ------------------------------------------------------------------------------------------------------------


async def unchanged(tx: ReadTx, dataset_id: UUID, given: Sequence[IncomingDocument]) -> set[str]:
    """Return the URIs of files that are stored as they are, described or waiting; failed ones are not among them."""
    found = await tx.fetch(
        "SELECT d.uri, d.title, d.format, m.path, m.media_type, m.bytes, m.content_hash FROM documents d "
        "JOIN media m ON m.document_id = d.id WHERE d.dataset_id = $1 AND d.uri = ANY($2) "
        "AND m.failed_hash IS DISTINCT FROM m.content_hash",
        dataset_id,
        [one.uri for one in given],
    )
    known = {uri: (title, format_, Media(*file)) for uri, title, format_, *file in found}
    return {one.uri for one in given if known.get(one.uri) == (one.title, one.format, one.media)}


# After a text in between, its chunks are still there: the same file is described again.
FORGET_TEXTS = """
DELETE FROM media m USING documents d
WHERE d.id = m.document_id AND d.dataset_id = $1 AND d.uri = ANY($2) AND d.format NOT IN ('image', 'audio')
"""

# Old chunks and their recipe stay until the description arrives.
UPSERT_MEDIA_DOCUMENTS = """
INSERT INTO documents AS d (dataset_id, uri, title, format, stamp, metadata)
SELECT $1, n.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[]) n
ON CONFLICT (dataset_id, uri) DO UPDATE SET title = EXCLUDED.title, format = EXCLUDED.format, stamp = EXCLUDED.stamp,
    content = NULL, version = d.version + 1, updated_at = now()
RETURNING id, uri
"""

# Only a replaced file leaves its job: the answer for an unchanged one is still to come.
UPSERT_FILES = """
INSERT INTO media AS m (document_id, dataset_id, path, media_type, bytes, content_hash)
SELECT n.id, $1, n.path, n.media_type, n.bytes, n.hash
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bytea[]) n (id, path, media_type, bytes, hash)
ON CONFLICT (document_id) DO UPDATE SET
    path = EXCLUDED.path, media_type = EXCLUDED.media_type, bytes = EXCLUDED.bytes,
    content_hash = EXCLUDED.content_hash, failed_hash = NULL, error = NULL,
    job_id = CASE WHEN m.content_hash = EXCLUDED.content_hash THEN m.job_id END,
    tries = CASE WHEN m.content_hash = EXCLUDED.content_hash AND m.failed_hash IS NULL THEN m.tries ELSE 0 END
"""


async def upsert(tx: Tx, dataset_id: UUID, given: Sequence[IncomingDocument]) -> None:
    """Save files as documents of a dataset, each under its own URI. Those without a description wait for it.

    A file that failed before waits again.
    """
    # the same order everywhere prevents deadlocks
    files = sorted(((one, one.media) for one in given if one.media is not None), key=lambda pair: pair[0].uri)
    uris = [one.uri for one, _ in files]
    await tx.execute(FORGET_TEXTS, dataset_id, uris)
    rows = await tx.fetch(
        UPSERT_MEDIA_DOCUMENTS,
        dataset_id,
        uris,
        [one.title for one, _ in files],
        [one.format for one, _ in files],
        [one.stamp for one, _ in files],
        [orjson.dumps(one.metadata or {}).decode() for one, _ in files],
    )
    await document_records.save_metadata(tx, dataset_id, [one for one, _ in files])
    ids = {row["uri"]: row["id"] for row in rows}
    await tx.execute(
        UPSERT_FILES,
        dataset_id,
        [ids[uri] for uri in uris],
        [file.path for _, file in files],
        [file.media_type for _, file in files],
        [file.size for _, file in files],
        [file.digest for _, file in files],
    )


# --- claim -----------------------------------------------------------------------------------------------------------


async def waiting(tx: ReadTx, dataset_ids: Sequence[UUID], *, tries: int | None = None) -> list[tuple[UUID, int]]:
    """Return `(dataset, files that a job could take)`, smallest first; `tries` is how many jobs failed, None for any."""
    rows = await tx.fetch(
        f"SELECT m.dataset_id, count(*) AS files FROM media m WHERE m.dataset_id = ANY($1) AND {CLAIMABLE_FILES} "
        "AND ($2::int IS NULL OR m.tries = $2) GROUP BY m.dataset_id ORDER BY files, m.dataset_id",
        list(dataset_ids),
        tries,
    )
    return [(row["dataset_id"], row["files"]) for row in rows]


async def waiting_bytes(tx: ReadTx, dataset_ids: Sequence[UUID]) -> int:
    """Return the bytes of all files that wait in some datasets."""
    total: int = await tx.fetchval(
        f"SELECT coalesce(sum(m.bytes), 0)::bigint FROM media m WHERE m.dataset_id = ANY($1) AND {CLAIMABLE_FILES}",
        list(dataset_ids),
    )
    return total


FILE_COLUMNS = "m.document_id, m.path, m.media_type, m.content_hash"


async def waiting_files(tx: ReadTx, dataset_id: UUID, *, tries: int, after: int, limit: int) -> list[WaitingFile]:
    """Return files of a dataset that a job could take, ordered by document id, after the document `after`."""
    rows = await tx.fetch(
        f"SELECT {FILE_COLUMNS} FROM media m WHERE m.dataset_id = $1 AND m.tries = $2 AND m.document_id > $3 AND {CLAIMABLE_FILES} "
        "ORDER BY m.document_id LIMIT $4",
        dataset_id,
        tries,
        after,
        limit,
    )
    return [WaitingFile(**row) for row in rows]


async def lock_free(tx: Tx, document_id: int, content_hash: bytes) -> bool:
    """Lock a file until the transaction ends; return False if a job took it, or it was replaced or deleted."""
    return bool(
        await tx.fetchval(
            f"SELECT true FROM media m WHERE m.document_id = $1 AND m.content_hash = $2 AND {CLAIMABLE_FILES} FOR UPDATE OF m",
            document_id,
            content_hash,
        )
    )


async def add_to_job(tx: Tx, job_id: UUID, document_id: int) -> None:
    """Put a free file into a job."""
    await tx.execute("UPDATE media SET job_id = $2 WHERE document_id = $1", document_id, job_id)


async def of_job(tx: ReadTx, job_id: UUID) -> list[tuple[str, WaitingFile]]:
    """Return `(key, file)` of everything in a job that is still the file that went into it."""
    rows = await tx.fetch(
        f"SELECT i.key, {FILE_COLUMNS} FROM batch_items i JOIN media m ON m.document_id = i.vector_id "
        f"WHERE i.job_id = $1 AND m.job_id = $1 AND m.content_hash = i.content_hash AND {UNDESCRIBED} AND {OF_LIVE_DATASET} "
        "ORDER BY m.document_id",
        job_id,
    )
    return [(key, WaitingFile(*values)) for key, *values in rows]


async def replace_file(tx: Tx, medium: WaitingFile, found: Media) -> None:
    """Save that another file is at a path; it waits for a description unless it already has one."""
    await tx.execute(
        "UPDATE media SET content_hash = $3, media_type = $4, bytes = $5, job_id = NULL, tries = 0, failed_hash = NULL, "
        "error = NULL WHERE document_id = $1 AND content_hash = $2",
        medium.document_id,
        medium.content_hash,
        found.digest,
        found.media_type,
        found.size,
    )


# --- results ----------------------------------------------------------------------------------------------------------


async def is_wanted(tx: ReadTx, job_id: UUID) -> bool:
    """Return whether any file of a job is still to be described as it was sent."""
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT FROM batch_items i JOIN media m ON m.document_id = i.vector_id "
            f"WHERE i.job_id = $1 AND m.content_hash = i.content_hash AND {UNDESCRIBED} AND {OF_LIVE_DATASET})",
            job_id,
        )
    )


REQUESTED = f"""
SELECT i.vector_id, i.key, i.content_hash, d.dataset_id, d.uri, d.title, d.format, d.stamp
FROM batch_items i
LEFT JOIN media m ON m.document_id = i.vector_id AND m.content_hash = i.content_hash AND {UNDESCRIBED} AND {OF_LIVE_DATASET}
LEFT JOIN documents d ON d.id = m.document_id
WHERE i.job_id = $1 AND i.key = ANY($2) ORDER BY i.vector_id
"""


async def requested(tx: ReadTx, job_id: UUID, keys: Sequence[str]) -> list[RequestedFile]:
    """Return the files that wait for the answers to some keys."""
    found: list[RequestedFile] = []
    for document_id, key, content_hash, dataset_id, uri, title, format_, stamp in await tx.fetch(
        REQUESTED, job_id, list(keys)
    ):
        document = None if uri is None else IncomingDocument(uri, title, "", format_, stamp)
        found.append(RequestedFile(document_id, key, content_hash, dataset_id, document))
    return found


async def lock_undescribed(tx: Tx, given: Sequence[RequestedFile]) -> set[int]:
    """Lock documents and return the ids of those that are still to be described as they were sent."""
    rows = await tx.fetch(
        "SELECT m.document_id FROM documents d JOIN media m ON m.document_id = d.id "
        "JOIN unnest($1::bigint[], $2::bytea[]) n (id, hash) ON n.id = d.id "
        # the format of the locked row is checked too: a text may have replaced it meanwhile
        f"WHERE d.id = ANY($1) AND m.content_hash = n.hash AND {UNDESCRIBED} AND d.format IN ('image', 'audio') AND {OF_LIVE_DATASET} "
        "ORDER BY d.id FOR UPDATE OF d, m",
        [one.document_id for one in given],
        [one.content_hash for one in given],
    )
    return {row["document_id"] for row in rows}


async def mark_described(tx: Tx, document_ids: Sequence[int]) -> None:
    """Save that the text of these documents is the description of their files as they are."""
    await tx.execute(
        "UPDATE media SET described_hash = content_hash, failed_hash = NULL, error = NULL, job_id = NULL, tries = 0 "
        "WHERE document_id = ANY($1)",
        list(document_ids),
    )


async def give_up(tx: Tx, document_id: int, content_hash: bytes, error: str) -> bool:
    """Mark a file as failed until it is replaced or added again; return False if it was replaced or described already."""
    marked = await tx.fetchval(
        "UPDATE media m SET failed_hash = m.content_hash, error = $3, job_id = NULL "
        f"WHERE m.document_id = $1 AND m.content_hash = $2 AND {UNDESCRIBED} RETURNING true",
        document_id,
        content_hash,
        error[:500],
    )
    return bool(marked)


async def release(tx: Tx, job_id: UUID, document_ids: Sequence[int]) -> int:
    """Release files as they were, without counting a failure; return how many the job still had."""
    tag = await tx.execute(
        "UPDATE media SET job_id = NULL WHERE job_id = $1 AND document_id = ANY($2)", job_id, list(document_ids)
    )
    return int(tag.rsplit(" ", 1)[-1])


async def return_files(tx: Tx, job_id: UUID, document_ids: Sequence[int], *, error: str) -> tuple[int, int]:
    """Release files that a job could not describe: `(files that wait again, files that failed)`."""
    rows = await tx.fetch(
        "UPDATE media SET tries = tries + 1, job_id = NULL, error = $4, "
        "failed_hash = CASE WHEN tries + 1 >= $3 THEN content_hash ELSE failed_hash END "
        "WHERE job_id = $1 AND document_id = ANY($2) RETURNING tries",
        job_id,
        list(document_ids),
        MOST_DESCRIBING_JOBS,
        error[:500],
    )
    given_up = sum(row["tries"] >= MOST_DESCRIBING_JOBS for row in rows)
    return len(rows) - given_up, given_up
