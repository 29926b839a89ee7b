"""Whatever happens to the folder of mirrors, searches are right and the mirror comes back, in memory at least."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evervec.domain.feed import DatabaseIdentity, FeedVectors, Watermark
from evervec.mirror.build import build
from evervec.mirror.disk.folder import MirrorFolder
from evervec.pipeline.mirrors.registry import MEBIBYTE
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import vector_wire
from tests.pipeline.mirrors.mirroring import (
    TEXTS,
    WIDTH,
    embedded,
    following,
    process,
    stored,
    until,
    until_true,
    worker,
)
from tests.pipeline.search.meaning import search
from tests.store.planting import unit


def file_of(resources: Resources, dataset: DatasetRef) -> Path:
    return resources.settings.mirrors / str(dataset.project_id) / f"{dataset.id}.bin"


async def right(resources: Resources, *engines: str) -> None:
    """Check that a search finds what it must, and that one of these engines answers."""
    for text in TEXTS[::7]:
        answer = await search(resources, text, k=5)
        assert answer.hits[0].text == text
        assert answer.hits[0].score == pytest.approx(1, abs=1e-5)
        assert len(answer.hits) == 5
        assert answer.engine in engines


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flipped,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "0 bytes": lambda path: path.write_bytes(b""),
    "no manifest": lambda path: path.with_suffix(".json").unlink(),
    "manifest is no JSON": lambda path: path.with_suffix(".json").write_bytes(b"\xff\x00"),
    "manifest is empty": lambda path: path.with_suffix(".json").write_bytes(b""),
}
GONE: dict[str, Callable[[Path], object]] = {
    "file": Path.unlink,
    "folder": lambda path: shutil.rmtree(path.parent.parent),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_file_that_is_not_right_is_set_aside_and_the_mirror_built_anew(
    resources: Resources, dataset: DatasetRef, damage: str
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
    path = file_of(resources, dataset)
    DAMAGES[damage](path)
    async with process(resources) as two:
        mirror = two.mirrors.mirror(dataset)
        async with following(two):
            await right(two, "exact", "pgvector", "mirror")
            await until_true(two, dataset)
            await right(two, "mirror")
        assert mirror.state == "ready"
    reasons = [found.read_text() for found in path.parent.glob("*.reason.*.aside")]
    assert len(reasons) == 1
    assert len(reasons[0]) > 10
    async with process(resources) as reader:
        await right(reader, "mirror")


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_process_that_does_not_follow_answers_from_postgres_where_the_file_is_not_right(
    resources: Resources, dataset: DatasetRef, damage: str
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
    DAMAGES[damage](file_of(resources, dataset))
    async with process(resources) as reader:
        for engine in ("auto", "mirror"):
            answer = await search(reader, TEXTS[3], k=5, engine=engine)
            assert (answer.engine, answer.hits[0].text, len(answer.hits)) == ("exact", TEXTS[3], 5)
        assert reader.mirrors.mirror(dataset).state != "ready"


@pytest.mark.parametrize("what", GONE)
async def test_files_that_vanish_while_it_follows_are_not_missed_and_come_back(
    resources: Resources, dataset: DatasetRef, what: str
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        GONE[what](file_of(resources, dataset))
        await right(one, "mirror")
        await stored(one, dataset, ["written without a folder"])
        await until_true(one, dataset)
        assert (await search(one, "written without a folder", k=1)).engine == "mirror"
        await one.mirrors.rebuild(dataset, "compact was asked for")
        assert file_of(resources, dataset).exists()
    async with worker(resources) as two:
        mirror = await until_true(two, dataset)
        assert mirror.index is not None
        assert len(mirror.index.snapshot.main) == len(TEXTS) + 1


async def other_dataset(resources: Resources) -> DatasetRef:
    async with resources.database.transaction() as tx:
        return await datasets.ensure(tx, "river", "other")


async def test_the_file_of_another_dataset_is_no_mirror_of_this_one(resources: Resources, dataset: DatasetRef) -> None:
    other = await other_dataset(resources)
    await stored(resources, dataset, TEXTS)
    await stored(resources, other, [f"other {n}" for n in range(50)])
    async with worker(resources) as one:
        await until_true(one, dataset)
        await until_true(one, other)
    for suffix in (".bin", ".json"):
        theirs = file_of(resources, other).with_suffix(suffix)
        shutil.copyfile(theirs, file_of(resources, dataset).with_suffix(suffix))
    async with worker(resources) as two:
        await until_true(two, dataset)
        answer = await search(two, TEXTS[5], dataset="log", k=40)
        assert {hit.text for hit in answer.hits} == set(TEXTS)


async def test_vectors_of_another_width_under_the_right_name_are_no_mirror(
    resources: Resources, dataset: DatasetRef
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        mirror = await until_true(one, dataset)
        assert mirror.index is not None
        identity = mirror.index.snapshot.identity
    ids = np.arange(1, 11)
    narrow = FeedVectors(ids, ids, np.ones(10, np.int16), unit(10, WIDTH // 2))
    shutil.rmtree(resources.settings.mirrors)
    identities = DatabaseIdentity(
        identity.cluster, identity.timeline, identity.database, identity.space_id, WIDTH // 2, identity.schema
    )
    MirrorFolder(resources.settings.mirrors).save(
        dataset.project_id, dataset.id, build(narrow, identities, Watermark(900_000, 900_000))
    )
    async with worker(resources) as two:
        await until_true(two, dataset)
        await right(two, "mirror")


async def test_a_folder_that_can_not_be_written_leaves_mirrors_in_memory_and_says_so(
    resources: Resources, dataset: DatasetRef, tmp_path: Path
) -> None:
    await stored(resources, dataset, TEXTS)
    blocked = tmp_path / "no folder"
    blocked.write_text("a file is in the way")
    async with worker(resources, faiss_dir=blocked) as one:
        mirror = await until_true(one, dataset)
        await right(one, "mirror")
        assert mirror.reason.startswith("in memory only")
        assert "EVERVEC_FAISS_DIR" in mirror.reason
        blocked.unlink()
        await one.mirrors.rebuild(dataset, "rebuild was asked for")
        assert (mirror.state, mirror.reason) == ("ready", "")
    async with process(resources, faiss_dir=blocked) as two:
        await right(two, "mirror")


async def test_a_folder_that_stops_being_writable_costs_nothing_but_the_file(
    resources: Resources, dataset: DatasetRef
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        mirror = await until_true(one, dataset)
        shutil.rmtree(resources.settings.mirrors)
        resources.settings.mirrors.write_text("a file is in the way")
        await stored(one, dataset, ["later"])
        await one.mirrors.rebuild(dataset, "rebuild was asked for")
        await until_true(one, dataset)
        assert (mirror.state, mirror.reason.split(":")[0]) == ("ready", "in memory only")
        await right(one, "mirror")


async def test_datasets_beyond_the_memory_budget_are_dropped_and_come_back_when_asked(resources: Resources) -> None:
    names = ["a", "b", "c", "d"]
    async with resources.database.transaction() as tx:
        found = [await datasets.ensure(tx, "river", name) for name in names]
    for number, dataset in enumerate(found):
        rows = unit(6_000, WIDTH, seed=number)
        async with resources.database.transaction() as tx:
            # of a kind without an HNSW index, which would take a while to fill
            await tx.execute(
                "INSERT INTO embeddings (kind, row_id, dataset_id, content_hash, embedding, embedded_hash, space_id, "
                "embedded_at) SELECT 99, 10000 * $3 + n, $1, sha256(int8send(n)), v, sha256(int8send(n)), s.id, now() "
                "FROM unnest($2::vector[]) WITH ORDINALITY AS u (v, n), embedding_spaces s WHERE s.state = 'active'",
                dataset.id,
                vector_wire.pack(rows),
                number,
            )
        await stored(resources, dataset, [f"{dataset.slug} {text}" for text in TEXTS])
    async with worker(resources, mirror_memory_mb=1) as one:
        mirrors = [one.mirrors.mirror(dataset) for dataset in found]
        await until(lambda: all(m.last_check or m.state == "dropped" for m in mirrors))
        await until(lambda: sum(m.memory for m in mirrors) <= MEBIBYTE)
        assert all(m.state in ("ready", "dropped") for m in mirrors)
        assert {m.state for m in mirrors} == {"ready", "dropped"}
        for dataset in found * 2:
            text = f"{dataset.slug} {TEXTS[9]}"
            answer = await search(one, text, dataset=dataset.slug, kind="message", k=3)
            assert (answer.engine, answer.hits[0].text) == ("mirror", text)
            assert sum(m.memory for m in mirrors) <= MEBIBYTE
        await stored(one, found[0], ["written while it was dropped"])
        answer = await search(one, "written while it was dropped", dataset="a", kind="message", k=1)
        assert (answer.engine, answer.hits[0].text) == ("mirror", "written while it was dropped")


async def test_a_mirror_that_was_built_before_it_is_followed_is_compared_all_the_same(
    resources: Resources, dataset: DatasetRef
) -> None:
    await stored(resources, dataset, TEXTS)
    async with process(resources) as one:
        await one.mirrors.rebuild(dataset, "asked for")
        assert one.mirrors.mirror(dataset).last_check is None
        async with following(one):
            assert (await until_true(one, dataset)).last_check is not None


async def test_two_processes_on_one_folder_are_both_right(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one, worker(resources) as two:
        for turn in range(3):
            await stored(one, dataset, [f"turn {turn}"])
            await psql.execute("DELETE FROM messages WHERE content = $1", f"turn {turn - 1}")
            for each in (one, two):
                await each.mirrors.rebuild(dataset, "both at once")
                await until_true(each, dataset)
                assert (await search(each, f"turn {turn}", k=1)).hits[0].text == f"turn {turn}"
                await right(each, "mirror")
    async with process(resources) as three:
        await right(three, "mirror")
        assert (await search(three, "turn 2", k=1)).hits[0].text == "turn 2"
        assert (await three.mirrors.check(dataset, deep=False)).in_sync


async def test_a_mirror_made_by_one_process_is_what_the_next_one_reads(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
    await embedded(resources, psql, dataset, "after the worker stopped")
    async with process(resources) as two:
        assert (await search(two, "after the worker stopped", k=1)).engine == "mirror"
        assert (await search(two, "after the worker stopped", k=1)).hits[0].text == "after the worker stopped"
