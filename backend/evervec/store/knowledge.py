"""Topics, atoms with their versions and sources, and the links between atoms."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from evervec.domain.extraction.knowledge import (
    AtomDraft,
    AtomType,
    DatasetKnowledge,
    KnownAtom,
    KnownTopic,
    LinkType,
    TopicDraft,
)
from evervec.domain.extraction.reconcile import AtomPlan
from evervec.store.database.session import ReadTx, Tx


async def lock(tx: Tx, dataset_id: UUID) -> None:
    """Wait until no other transaction changes the knowledge of a dataset, and keep others waiting until this one ends."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", str(dataset_id))


async def known(tx: ReadTx, dataset_id: UUID, message_ids: Sequence[int], *, recent: int = 200) -> DatasetKnowledge:
    """Return all topics of a dataset, the atoms drawn from the given messages, and the `recent` newest other atoms."""
    topics = await tx.fetch("SELECT id, name, description FROM topics WHERE dataset_id = $1 ORDER BY id", dataset_id)
    atoms = await tx.fetch(
        """
        WITH wanted AS (
            SELECT DISTINCT s.atom_id AS id FROM atom_sources s JOIN atoms a ON a.id = s.atom_id
            WHERE s.message_id = ANY($2) AND a.dataset_id = $1
            UNION (SELECT id FROM atoms WHERE dataset_id = $1 ORDER BY id DESC LIMIT $3)
        )
        SELECT a.id, a.type, a.title, a.content, t.name AS topic,
               array(SELECT s.message_id FROM atom_sources s WHERE s.atom_id = a.id ORDER BY 1) AS message_ids
        FROM wanted JOIN atoms a USING (id) LEFT JOIN topics t ON t.id = a.topic_id ORDER BY a.id
        """,
        dataset_id,
        list(message_ids),
        recent,
    )
    return DatasetKnowledge(
        [KnownTopic(*row) for row in topics],
        [
            KnownAtom(r["id"], AtomType(r["type"]), r["title"], r["content"], r["topic"], tuple(r["message_ids"]))
            for r in atoms
        ],
    )


async def save_topics(tx: Tx, dataset_id: UUID, drafts: Sequence[TopicDraft]) -> dict[str, int]:
    """Create topics or fill in a missing description; return `{lower-case name: topic id}`."""
    names = [draft.name for draft in drafts]
    await tx.execute(
        """
        INSERT INTO topics AS t (dataset_id, name, description)
        SELECT DISTINCT ON (lower(name)) $1::uuid, name, description
        FROM unnest($2::text[], $3::text[]) AS v (name, description) ORDER BY lower(name), description = ''
        ON CONFLICT (dataset_id, lower(name)) DO UPDATE SET description = EXCLUDED.description, updated_at = now()
        WHERE t.description = '' AND EXCLUDED.description <> ''
        """,
        dataset_id,
        names,
        [draft.description for draft in drafts],
    )
    # PostgreSQL decides which names are equal (its lower() knows fewer letters), Python's lower() only makes our key
    rows = await tx.fetch(
        "SELECT v.name, t.id FROM unnest($2::text[]) AS v (name) "
        "JOIN topics t ON t.dataset_id = $1 AND lower(t.name) = lower(v.name)",
        dataset_id,
        names,
    )
    return {row["name"].lower(): row["id"] for row in rows}


async def save_atoms(
    tx: Tx, dataset_id: UUID, plan: AtomPlan, topics: Mapping[str, int]
) -> tuple[dict[int, int], list[int]]:
    """Apply a plan: create atoms, change atoms (the older version is kept), delete atoms.

    Return `{draft index: atom id}` and `version_created_atom_ids`, the atoms that are new or changed.
    """
    if plan.retired:
        await tx.execute("DELETE FROM atoms WHERE id = ANY($1) AND dataset_id = $2", list(plan.retired), dataset_id)
    if plan.detached:
        await tx.execute(
            "DELETE FROM atom_sources s USING unnest($1::bigint[], $2::bigint[]) AS v (atom_id, message_id) "
            "WHERE s.atom_id = v.atom_id AND s.message_id = v.message_id",
            [atom_id for atom_id, _ in plan.detached],
            [message_id for _, message_id in plan.detached],
        )
    atom_ids = dict(plan.kept)
    versioned = []
    for index, draft in plan.created.items():
        atom_ids[index] = await _create(tx, dataset_id, draft, _topic(draft, topics))
        versioned.append(atom_ids[index])
    for index, (atom_id, draft) in plan.changed.items():
        atom_ids[index] = atom_id
        if await _change(tx, atom_id, draft, _topic(draft, topics)):
            versioned.append(atom_id)
    await _save_sources(tx, atom_ids, plan.drafts)
    return atom_ids, versioned


def _topic(draft: AtomDraft, topics: Mapping[str, int]) -> int | None:
    return None if draft.topic is None else topics.get(draft.topic.lower())


async def _create(tx: Tx, dataset_id: UUID, draft: AtomDraft, topic_id: int | None) -> int:
    atom_id: int = await tx.fetchval(
        """
        WITH made AS (
            INSERT INTO atoms (dataset_id, topic_id, type, title, content, confidence)
            VALUES ($1, $2, $3, $4, $5, $6) RETURNING id, version, type, title, content, confidence
        ), versioned AS (
            INSERT INTO atom_versions (atom_id, version, type, title, content, confidence) SELECT * FROM made
        )
        SELECT id FROM made
        """,
        dataset_id,
        topic_id,
        str(draft.type),
        draft.title,
        draft.content,
        draft.confidence,
    )
    return atom_id


async def _change(tx: Tx, atom_id: int, draft: AtomDraft, topic_id: int | None) -> bool:
    changed = await tx.fetchval(
        """
        WITH made AS (
            UPDATE atoms SET topic_id = coalesce($2, topic_id), type = $3, title = $4, content = $5, confidence = $6,
                             version = version + 1, updated_at = now()
            WHERE id = $1 RETURNING id, version, type, title, content, confidence
        ), versioned AS (
            INSERT INTO atom_versions (atom_id, version, type, title, content, confidence) SELECT * FROM made
        )
        SELECT id FROM made
        """,
        atom_id,
        topic_id,
        str(draft.type),
        draft.title,
        draft.content,
        draft.confidence,
    )
    return changed is not None


async def _save_sources(tx: Tx, atom_ids: Mapping[int, int], drafts: Sequence[AtomDraft]) -> None:
    pairs = {
        (atom_ids[i], message_id) for i, draft in enumerate(drafts) if i in atom_ids for message_id in draft.message_ids
    }
    await tx.execute(
        "INSERT INTO atom_sources (atom_id, message_id) SELECT v.atom_id, v.message_id "
        "FROM unnest($1::bigint[], $2::bigint[]) AS v (atom_id, message_id) "
        # a source or an atom may have been deleted during the extraction
        "JOIN messages m ON m.id = v.message_id JOIN atoms a ON a.id = v.atom_id ON CONFLICT DO NOTHING",
        [atom_id for atom_id, _ in pairs],
        [message_id for _, message_id in pairs],
    )


async def link_atoms(tx: Tx, links: Sequence[tuple[int, LinkType, int, float]]) -> int:
    """Save `(source atom, type, target atom, confidence)` and return how many are new; the higher confidence stays."""
    best: dict[tuple[int, LinkType, int], float] = {}
    for source, type_, target, confidence in links:
        if source != target:
            best[source, type_, target] = max(confidence, best.get((source, type_, target), 0.0))
    rows = await tx.fetch(
        """
        INSERT INTO atom_links AS l (source_id, type, target_id, confidence)
        SELECT v.source, v.type, v.target, v.confidence
        FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::real[]) AS v (source, type, target, confidence)
        JOIN atoms s ON s.id = v.source JOIN atoms t ON t.id = v.target AND t.dataset_id = s.dataset_id
        ON CONFLICT (source_id, type, target_id) DO UPDATE SET confidence = greatest(l.confidence, EXCLUDED.confidence)
        RETURNING xmax = 0 AS created
        """,
        [key[0] for key in best],
        [str(key[1]) for key in best],
        [key[2] for key in best],
        list(best.values()),
    )
    return sum(row["created"] for row in rows)


async def counts(tx: ReadTx, dataset_ids: Sequence[UUID]) -> dict[str, int]:
    """Count topics, atoms and links of datasets."""
    row = await tx.fetchrow(
        """
        SELECT (SELECT count(*) FROM topics WHERE dataset_id = ANY($1)) AS topics,
               (SELECT count(*) FROM atoms WHERE dataset_id = ANY($1)) AS atoms,
               (SELECT count(*) FROM atom_links l JOIN atoms a ON a.id = l.source_id
                WHERE a.dataset_id = ANY($1)) AS links
        """,
        list(dataset_ids),
    )
    return {} if row is None else dict(row)


async def largest_topics(tx: ReadTx, dataset_ids: Sequence[UUID], *, most: int) -> list[tuple[int, str, int]]:
    """Return `(topic id, name, atoms)`, most atoms first."""
    rows = await tx.fetch(
        "SELECT t.id, t.name, count(a.id) AS atoms FROM topics t LEFT JOIN atoms a ON a.topic_id = t.id "
        "WHERE t.dataset_id = ANY($1) GROUP BY t.id ORDER BY atoms DESC, t.id LIMIT $2",
        list(dataset_ids),
        most,
    )
    return [(row["id"], row["name"], row["atoms"]) for row in rows]


async def atoms_of_topic(tx: ReadTx, topic_id: int, *, most: int) -> list[tuple[str, str, float]]:
    """Return `(type, title, confidence)`, highest confidence first."""
    rows = await tx.fetch(
        "SELECT type, title, confidence FROM atoms WHERE topic_id = $1 ORDER BY confidence DESC, id LIMIT $2",
        topic_id,
        most,
    )
    return [(row["type"], row["title"], row["confidence"]) for row in rows]


async def sample_links(tx: ReadTx, dataset_ids: Sequence[UUID], *, most: int) -> list[tuple[str, str, str]]:
    """Return `(title, link type, title)`, highest confidence first."""
    rows = await tx.fetch(
        "SELECT s.title AS source, l.type, t.title AS target FROM atom_links l JOIN atoms s ON s.id = l.source_id "
        "JOIN atoms t ON t.id = l.target_id WHERE s.dataset_id = ANY($1) ORDER BY l.confidence DESC, s.id, t.id LIMIT $2",
        list(dataset_ids),
        most,
    )
    return [(row["source"], row["type"], row["target"]) for row in rows]
