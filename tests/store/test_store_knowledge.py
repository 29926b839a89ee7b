"""Topics, atoms with versions and sources, links: saved as planned, kept when they change, gone with what said them."""

from collections.abc import Sequence
from typing import Any

import pytest

from evervec.domain.extraction.knowledge import AtomDraft, AtomType, LinkType, TopicDraft
from evervec.domain.extraction.reconcile import reconcile
from evervec.store import knowledge
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import ATOM, MESSAGE, TOPIC
from tests.store.planting import embed_all, plant, record


def draft(content: str, *sources: int, type_: AtomType = AtomType.INSIGHT, topic: str | None = None) -> AtomDraft:
    return AtomDraft(type_, content[:20], content, 0.5, sources, topic)


@pytest.fixture
async def said(psql: Any, dataset: DatasetRef) -> list[int]:
    """Return the ids of three messages."""
    return [await plant(psql, MESSAGE, dataset.id, f"message {number}") for number in range(3)]


async def save(
    database: Database, dataset: DatasetRef, drafts: Sequence[AtomDraft], extracted: Sequence[int]
) -> tuple[dict[int, int], list[int]]:
    async with database.transaction() as tx:
        known = await knowledge.known(tx, dataset.id, extracted)
        topics = {topic.name.lower(): topic.topic_id for topic in known.topics}
        return await knowledge.save_atoms(tx, dataset.id, reconcile(drafts, known.atoms, extracted), topics)


async def sources(psql: Any) -> dict[str, set[int]]:
    rows = await psql.fetch(
        "SELECT a.content, array_remove(array_agg(s.message_id), NULL) AS ids FROM atoms a "
        "LEFT JOIN atom_sources s ON s.atom_id = a.id GROUP BY a.id"
    )
    return {row["content"]: set(row["ids"]) for row in rows}


async def versions(psql: Any) -> list[tuple[int, str]]:
    return [tuple(row) for row in await psql.fetch("SELECT version, content FROM atom_versions ORDER BY 1, 2")]


async def test_topics_are_one_by_name_whatever_its_case_and_get_a_description_once(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    async with database.transaction() as tx:
        first = await knowledge.save_topics(
            tx, dataset.id, [TopicDraft("Queues", ""), TopicDraft("QUEUES", "what waits"), TopicDraft("Leases", "")]
        )
    assert set(first) == {"queues", "leases"}
    async with database.transaction() as tx:
        again = await knowledge.save_topics(
            tx, dataset.id, [TopicDraft("queues", "another one"), TopicDraft("leases", "who holds what")]
        )
        assert await knowledge.save_topics(tx, dataset.id, []) == {}
    assert again == first
    rows = await psql.fetch("SELECT lower(name), description FROM topics ORDER BY id")
    assert {tuple(row) for row in rows} == {("queues", "what waits"), ("leases", "who holds what")}


async def test_a_topic_that_says_nothing_new_is_not_written_again(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    drafts = [TopicDraft("Queues", "what waits"), TopicDraft("Leases", "")]
    everything = "SELECT *, xmin::text FROM topics ORDER BY id"
    async with database.transaction() as tx:
        await knowledge.save_topics(tx, dataset.id, drafts)
    before = await psql.fetch(everything)
    async with database.transaction() as tx:
        await knowledge.save_topics(tx, dataset.id, drafts)
    assert await psql.fetch(everything) == before


@pytest.mark.parametrize("names", [["Über", "über", "ÜBER"], ["İstanbul", "i̇stanbul"], ["K", "k", "K"]])
async def test_topics_of_any_script_are_saved_and_found_by_every_spelling_given(
    database: Database, dataset: DatasetRef, names: list[str]
) -> None:
    for _ in range(2):
        async with database.transaction() as tx:
            saved = await knowledge.save_topics(tx, dataset.id, [TopicDraft(name, "") for name in names])
        assert {name.lower() for name in names} == set(saved)


async def test_a_new_description_reopens_the_topics_vector(psql: Any, database: Database, dataset: DatasetRef) -> None:
    async with database.transaction() as tx:
        (topic_id,) = (await knowledge.save_topics(tx, dataset.id, [TopicDraft("Queues", "")])).values()
    await embed_all(psql)
    async with database.transaction() as tx:
        await knowledge.save_topics(tx, dataset.id, [TopicDraft("Queues", "what waits")])
    assert (await record(psql, TOPIC, topic_id))["pending_id"] is not None


async def test_new_atoms_are_announced_with_their_first_version_their_topic_and_their_sources(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    async with database.transaction() as tx:
        topics = await knowledge.save_topics(tx, dataset.id, [TopicDraft("Queues", "")])
    given = [draft("jobs wait", said[0], said[1], topic="QUEUES"), draft("leases end", said[1], topic="unheard of")]
    atom_ids, versioned = await save(database, dataset, given, said)
    assert (sorted(atom_ids), versioned) == ([0, 1], list(atom_ids.values()))
    assert await sources(psql) == {"jobs wait": set(said[:2]), "leases end": {said[1]}}
    assert await versions(psql) == [(1, "jobs wait"), (1, "leases end")]
    rows = await psql.fetch("SELECT topic_id FROM atoms ORDER BY id")
    assert [row["topic_id"] for row in rows] == [topics["queues"], None]


async def test_extracting_the_same_again_changes_nothing(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    given = [draft("jobs wait", said[0]), draft("jobs wait", said[1]), draft("leases end", said[1])]
    first, _ = await save(database, dataset, given, said)
    everything = "SELECT *, xmin::text FROM {} ORDER BY 1, 2"
    tables = ("atoms", "atom_versions", "atom_sources")
    before = [await psql.fetch(everything.format(table)) for table in tables]
    assert await save(database, dataset, given, said) == (first, [])
    assert [await psql.fetch(everything.format(table)) for table in tables] == before


async def test_a_changed_atom_keeps_its_id_and_its_older_version(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    first, _ = await save(database, dataset, [draft("the worker hangs after a restart", said[0])], said[:1])
    await embed_all(psql)
    changed = [draft("the worker hangs after every restart of NATS", said[0], type_=AtomType.PROBLEM)]
    assert await save(database, dataset, changed, said[:1]) == (first, [first[0]])
    assert [version for version, _ in await versions(psql)] == [1, 2]
    row = await psql.fetchrow("SELECT type, version FROM atoms")
    assert tuple(row) == ("problem", 2)
    assert (await record(psql, ATOM, first[0]))["pending_id"] is not None


async def test_an_edited_message_takes_back_what_it_alone_said_and_its_share_of_the_rest(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    given = [draft("only the first said this", said[0]), draft("both said that", said[0], said[1])]
    await save(database, dataset, given, said)
    await save(database, dataset, [], said[:1])
    assert await sources(psql) == {"both said that": {said[1]}}
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE kind = $1", ATOM.kind) == 1


async def test_a_message_that_no_longer_says_it_is_no_source_even_if_another_still_does(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    await save(database, dataset, [draft("both said that", said[0], said[1])], said)
    await save(database, dataset, [draft("both said that", said[1])], said)
    assert await sources(psql) == {"both said that": {said[1]}}


async def test_a_source_deleted_while_the_extractor_was_thinking_is_left_out(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    await psql.execute("DELETE FROM messages WHERE id = $1", said[0])
    await save(database, dataset, [draft("said by two", said[0], said[1])], said)
    assert await sources(psql) == {"said by two": {said[1]}}


async def test_links_are_saved_once_the_stronger_confidence_stays_and_nonsense_is_left_out(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    atoms, _ = await save(database, dataset, [draft("one", said[0]), draft("a second thing", said[1])], said)
    link = (atoms[0], LinkType.SOLVES, atoms[1])
    async with database.transaction() as tx:
        given = [(*link, 0.4), (*link, 0.6), (atoms[0], LinkType.SOLVES, atoms[0], 0.9)]
        assert await knowledge.link_atoms(tx, [*given, (atoms[0], LinkType.REFINES, 10**9, 0.9)]) == 1
    async with database.transaction() as tx:
        assert await knowledge.link_atoms(tx, [(*link, 0.1)]) == 0
        assert await knowledge.link_atoms(tx, []) == 0
        assert await knowledge.counts(tx, [dataset.id]) == {"topics": 0, "atoms": 2, "links": 1}
    rows = await psql.fetch("SELECT source_id, type, target_id, confidence FROM atom_links")
    assert [tuple(row) for row in rows] == [(atoms[0], "solves", atoms[1], pytest.approx(0.6))]


async def test_atoms_of_two_datasets_are_never_linked(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    atoms, _ = await save(database, dataset, [draft("here", said[0])], said)
    elsewhere = await psql.fetchval(
        "INSERT INTO datasets (project_id, slug, name) SELECT project_id, 'b', 'b' FROM datasets RETURNING id"
    )
    there = await plant(psql, ATOM, elsewhere, "there")
    async with database.transaction() as tx:
        assert await knowledge.link_atoms(tx, [(atoms[0], LinkType.SUPPORTS, there, 0.9)]) == 0


async def test_what_is_known_are_the_atoms_of_these_messages_and_the_latest_others(
    database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    given = [draft(f"statement of its own {number}", said[0 if number == 0 else 1]) for number in range(6)]
    await save(database, dataset, given, said)
    async with database.read() as tx:
        known = await knowledge.known(tx, dataset.id, said[:1], recent=2)
    assert [atom.content for atom in known.atoms] == [given[place].content for place in (0, 4, 5)]
    assert known.atoms[0].message_ids == (said[0],)


async def test_deleting_a_message_keeps_the_atom_and_deleting_the_atom_its_topic(
    psql: Any, database: Database, dataset: DatasetRef, said: list[int]
) -> None:
    async with database.transaction() as tx:
        await knowledge.save_topics(tx, dataset.id, [TopicDraft("Queues", "")])
    await save(database, dataset, [draft("jobs wait", said[0], topic="Queues")], said)
    await psql.execute("DELETE FROM messages")
    assert await sources(psql) == {"jobs wait": set()}
    async with database.read() as tx:
        ((topic_id, name, atoms),) = await knowledge.largest_topics(tx, [dataset.id], most=3)
        assert (name, atoms) == ("Queues", 1)
        assert await knowledge.atoms_of_topic(tx, topic_id, most=3) == [("insight", "jobs wait", 0.5)]
    await psql.execute("DELETE FROM atoms")
    assert await versions(psql) == []
    assert await psql.fetchval("SELECT count(*) FROM topics") == 1
