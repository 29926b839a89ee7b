"""A statement of the user never fails because of Evervec, and its record is right, whatever the session's search_path is."""

import pytest

from evervec.store.schema.embeddables import ATOM, CHUNK, EMBEDDABLES, Embeddable
from tests.database import rows
from tests.database.places import EMBEDDINGS, place
from tests.database.programs import Psql
from tests.database.rows import KINDS, digests, recorded

every_kind = pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda embeddable: embeddable.name)
every_path = pytest.mark.parametrize(
    "path", ["", "app", "pg_catalog", "app, pg_temp"], ids=["empty", "app", "pg", "temp"]
)


def writer(psql: Psql, path: str) -> Psql:
    """Return a session of a program that never heard of our schema."""
    psql("CREATE SCHEMA app", "CREATE TABLE app.unrelated (id int)")
    return psql.given(search_path=path or '""')


@every_path
@every_kind
def test_every_way_to_write_keeps_the_record(furnished: Psql, embeddable: Embeddable, path: str) -> None:
    app, table = writer(furnished, path), place(embeddable)
    assert app.value("SHOW search_path") in (path, '""')
    app(rows.insert(embeddable, {1: "one", 2: "two"}))
    app.script(rows.copy(embeddable, {3: "three", 4: "four"}))
    app(rows.upsert(embeddable, {4: "four again", 5: "five"}))
    held = {1: "one", 2: "two", 3: "three", 4: "four again", 5: "five"}
    assert recorded(furnished, embeddable) == digests(held)
    rows.embed_all(furnished)
    app(rows.edit(embeddable, 1, "one again"), f"UPDATE {table} SET {KINDS[embeddable].other}")
    assert recorded(furnished, embeddable) == digests(held | {1: "one again"})
    (gone,) = furnished(f"SELECT vector_id FROM {EMBEDDINGS} WHERE row_id = 2 AND kind = {embeddable.kind}")
    app(f"DELETE FROM {table} WHERE id = 2", f"UPDATE {table} SET id = 6 WHERE id = 5")
    assert recorded(furnished, embeddable) == digests({1: "one again", 3: "three", 4: "four again", 6: "five"})
    assert int(gone[0]) in rows.tombstones(furnished)
    assert len(rows.tombstones(furnished)) == 2


@every_path
@every_kind
def test_truncate_takes_the_records_of_the_kind_and_leaves_tombstones(
    furnished: Psql, embeddable: Embeddable, path: str
) -> None:
    app = writer(furnished, path)
    bystander = ATOM if embeddable is CHUNK else CHUNK
    app(rows.insert(embeddable, {1: "one", 2: "two"}), rows.insert(bystander, {1: "stays"}))
    rows.embed_all(furnished)
    app(f"TRUNCATE {place(embeddable)} CASCADE")
    assert recorded(furnished, embeddable) == {}
    assert recorded(furnished, bystander) == digests({1: "stays"})
    assert len(rows.tombstones(furnished)) == 2


@every_path
def test_a_vector_set_moved_and_removed_by_hand_is_noticed(furnished: Psql, path: str) -> None:
    app = writer(furnished, path)
    app(rows.insert(CHUNK, {1: "one", 2: "two", 3: "three"}))
    rows.embed_all(furnished)
    before = furnished(f"SELECT row_id, vector_id, changed_xid FROM {EMBEDDINGS} ORDER BY row_id")
    app(f"UPDATE {EMBEDDINGS} SET embedding = '[3,2,1]' WHERE row_id = 1")
    app(f"UPDATE {EMBEDDINGS} SET embedding = NULL WHERE row_id = 2")
    app(f"UPDATE {place(CHUNK)} SET dataset_id = '{rows.ELSEWHERE}' WHERE id = 3")
    after = furnished(f"SELECT row_id, vector_id, changed_xid FROM {EMBEDDINGS} ORDER BY row_id")
    assert [one[:2] for one in after] == [one[:2] for one in before]
    assert all(int(new[2]) > int(old[2]) for old, new in zip(before, after, strict=True))
    assert rows.tombstones(furnished) == [int(before[1][1]), int(before[2][1])]
    app(f"DELETE FROM {EMBEDDINGS} WHERE row_id = 1")
    assert int(before[0][1]) in rows.tombstones(furnished)


@every_path
def test_a_dataset_deleted_by_another_program_takes_everything_along(furnished: Psql, path: str) -> None:
    app = writer(furnished, path)
    for embeddable in EMBEDDABLES:
        app(rows.insert(embeddable, {1: "one"}))
    rows.embed_all(furnished)
    from tests.database.places import SCHEMA

    app(f"DELETE FROM {SCHEMA}.datasets")
    assert furnished.number(f"SELECT count(*) FROM {EMBEDDINGS}") == 0
    assert len(rows.tombstones(furnished)) == len(EMBEDDABLES)
