"""What else happens to a dataset in the middle of a build: it is deleted, restored, indexed, its table attached and detached."""

from pathlib import Path
from typing import Any

import pytest

from evervec.pipeline.attached.detach import detach
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.pipeline.upkeep.janitor import clean_up
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from tests.fakes.server import FakeProvider
from tests.pipeline.attached import tables
from tests.pipeline.indexing.indexed import ingest, put
from tests.pipeline.search.meaning import search
from tests.pipeline.spaces.spaced import another, filled, require_no_more, require_true, settled, traces, write


async def delete(resources: Resources, dataset: DatasetRef) -> None:
    async with resources.database.transaction() as tx:
        await datasets.remove(tx, dataset.id)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_dataset_deleted_during_its_build_leaves_nothing_and_stops_no_other(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any, whole: bool
) -> None:
    other = await another(resources)
    await write(resources, other, "stays")
    await settled(resources, other)
    before = await traces(psql)
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"), dataset="log")
    if whole:
        await fill(resources)
    await delete(resources, dataset)
    await fill(resources)
    await settled(resources, other)
    await settled(resources, other)
    require_no_more(await traces(psql), before)
    assert (await search(resources, "stays", k=1)).hits[0].text == "stays"
    # one of the same name begins anew, in the default space alone
    again = await another(resources, "log")
    await write(resources, again, "new")
    await settled(resources, again)
    await require_true(psql)


async def test_a_dataset_restored_before_it_was_purged_goes_on_with_its_build(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"))
    await delete(resources, dataset)
    await fill(resources)
    await another(resources, "log")
    await settled(resources, dataset)
    await flip.activate(resources)
    await require_true(psql)


async def test_an_index_run_during_a_build_reaches_both_spaces(
    resources: Resources, wide: FakeProvider, psql: Any, tmp_path: Path
) -> None:
    put(tmp_path / "a.md", "# A\n\nAbout apples.\n")
    put(tmp_path / "b.md", "# B\n\nAbout bears.\n")
    await ingest(resources, tmp_path)
    async with resources.database.read() as tx:
        (docs,) = await datasets.find(tx, "docs")
    await settled(resources, docs)
    await start(resources, BuildOptions("wide"))
    put(tmp_path / "a.md", "# A\n\nAbout apricots, which are no apples.\n")
    put(tmp_path / "c.md", "# C\n\nAbout cats.\n")
    (tmp_path / "b.md").unlink()
    await ingest(resources, tmp_path)
    await fill(resources)
    put(tmp_path / "c.md", "# C\n\nAbout caterpillars.\n")
    await ingest(resources, tmp_path)
    await settled(resources, docs)
    await flip.activate(resources)
    await require_true(psql)
    found = [hit.text for hit in (await search(resources, "apricots", k=10)).hits]
    assert len(found) == 2 and not any("bears" in text for text in found)
    await flip.roll_back(resources)
    assert len((await search(resources, "apricots", k=10)).hits) == 2


async def test_a_table_attached_and_detached_during_builds_is_in_every_space_and_then_in_none(
    resources: Resources, wide: FakeProvider, psql: Any
) -> None:
    await tables.open_articles(psql, 12)
    await psql.execute("CREATE TABLE public.elsewhere (id bigint PRIMARY KEY)")
    before = await traces(psql)
    done = await tables.attached(resources)
    await tables.settled(resources, done.id)
    await start(resources, BuildOptions("wide"))
    await psql.execute("UPDATE public.articles SET title = 'Another ' || id WHERE id <= 3")
    await psql.execute("DELETE FROM public.articles WHERE id = 12")
    await tables.settled(resources, done.id)
    await fill(resources)
    await flip.activate(resources)
    assert await psql.fetchval("SELECT count(*) FROM evervec.articles WHERE embedding_status = 'READY'") == 11
    assert await psql.fetchval("SELECT DISTINCT vector_dims(embedding::vector) FROM evervec.articles") == wide.dims
    await psql.execute("INSERT INTO public.articles (title, body) VALUES ('Late', 'row')")
    await tables.settled(resources, done.id)
    await fill(resources)
    await flip.roll_back(resources)
    assert await psql.fetchval("SELECT DISTINCT vector_dims(embedding::vector) FROM evervec.articles") == 32
    assert await psql.fetchval("SELECT count(*) FROM evervec.articles WHERE embedding_status = 'READY'") == 12
    await detach(resources, "public.articles")
    for _ in range(3):
        await clean_up(resources)
        await fill(resources)
    after = await traces(psql)
    assert after["embeddings"] == after["chunks"] == after["documents"] == 0
    # the dataset of an attached table stays as a deleted one
    require_no_more({name: after[name] for name in after if name not in ("projects", "datasets")}, before)
