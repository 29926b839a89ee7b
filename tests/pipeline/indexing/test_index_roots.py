"""Roots that are not there: nothing is deleted because a disk is not mounted, and what is really gone can be forgotten."""

import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from evervec.errors import EmptySourceError, NoSourceError, Refused, SourceMissingError, UnreadablePathError
from evervec.pipeline.indexing import requests
from evervec.pipeline.indexing.requests import RunRequest
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.resources import Resources
from evervec.sources.files.file_uris import uri_of
from evervec.store.runs import RunRecord
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.indexed import chunks, ingest, put, sent

LETS_GO = RunOptions(allow_empty=True)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return put(tmp_path / "one" / "a.md", "Alpha").parent


@pytest.fixture
def two(tmp_path: Path) -> Path:
    put(tmp_path / "two" / "b.md", "Beta")
    return put(tmp_path / "two" / "c.md", "Gamma").parent


@pytest.fixture
async def both(resources: Resources, one: Path, two: Path) -> UUID:
    """Create a dataset of two folders."""
    return (await ingest(resources, one, two)).dataset_id


async def full(resources: Resources, dataset_id: UUID, options: RunOptions = requests.NO_OPTIONS) -> RunRecord:
    return await requests.index(resources, dataset_id, RunRequest(full=True), options)


async def roots(psql: Any) -> list[str]:
    spec = await psql.fetchval("SELECT spec FROM sources")
    found: list[str] = orjson.loads(spec)["roots"]
    return found


async def names(psql: Any) -> list[str]:
    return [row[0].rpartition("/")[2] for row in await chunks(psql)]


@pytest.mark.parametrize("rebuild", [True, False])
async def test_a_run_goes_on_with_the_roots_that_are_there(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID, rebuild: bool
) -> None:
    shutil.move(two, two.with_name("away"))
    put(one / "new.md", "New")
    run = await requests.index(resources, both, RunRequest(full=rebuild))
    assert (run.state, run.counts.documents_new, run.counts.documents_deleted) == ("done", 1, 0)
    assert run.skipped == {"unreadable": 1}
    (example,) = run.examples
    assert (example["uri"], example["detail"]) == (uri_of(two) + "/", "no such file or directory")
    assert await names(psql) == ["a.md", "new.md", "b.md", "c.md"]
    shutil.move(two.with_name("away"), two)
    run = await full(resources, both)
    assert (run.counts.documents_unchanged, run.skipped) == (4, {})


async def test_what_is_gone_from_a_root_that_is_there_goes_although_another_one_is_away(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    shutil.rmtree(one)
    (two / "b.md").unlink()
    assert (await full(resources, both)).counts.documents_deleted == 1
    assert await names(psql) == ["a.md", "c.md"]


async def test_a_root_that_is_there_but_empty_is_not_believed_although_another_one_is_away(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    shutil.rmtree(one)
    shutil.rmtree(two)
    put(two / "in" / "odd.xyz", "Nothing that is taken.")
    with pytest.raises(EmptySourceError, match="two"):
        await full(resources, both)
    assert len(await chunks(psql)) == 3


async def test_a_root_that_became_a_file_is_away(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    shutil.rmtree(two)
    put(two, "A file where a folder was")
    run = await full(resources, both)
    assert (run.counts.documents_deleted, run.skipped) == (0, {"unreadable": 1})
    assert run.examples[0]["detail"] == "not a directory"
    assert len(await chunks(psql)) == 3


async def test_a_file_that_was_given_by_name_is_away_with_its_folder(
    resources: Resources, psql: Any, one: Path
) -> None:
    named = put(one.parent / "disk" / "named.md", "Named")
    dataset_id = (await ingest(resources, one, named)).dataset_id
    shutil.move(named.parent, named.parent.with_name("unmounted"))
    run = await full(resources, dataset_id)
    assert (run.counts.documents_deleted, run.skipped) == (0, {"unreadable": 1})
    named.parent.mkdir()  # mounted again, and the file is not in it
    assert (await full(resources, dataset_id)).counts.documents_deleted == 1
    assert await names(psql) == ["a.md"]


async def test_ids_of_a_root_that_is_there_are_read_although_another_one_is_away(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    shutil.rmtree(one)  # the first one, from which relative ids begin
    put(two / "b.md", "Changed")
    (two / "c.md").unlink()
    changed = {"files": [str(two / "b.md"), str(two / "c.md"), "a.md", str(one)]}
    run = await requests.index_dataset(resources, both, changed)
    assert (run.counts.documents_changed, run.counts.documents_deleted) == (1, 1)
    assert run.skipped == {"unreadable": 2}
    assert await names(psql) == ["a.md", "b.md"]


async def test_without_any_root_a_run_is_refused_and_says_what_can_be_done(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    shutil.rmtree(one)
    shutil.rmtree(two)
    for request in (RunRequest(full=True), RunRequest(), RunRequest({"files": [str(one / "a.md")]})):
        with pytest.raises(
            SourceMissingError, match=r"one of the 2 paths.*of dataset p/docs.*mount it.*--full --allow-empty"
        ):
            await requests.index(resources, both, request)
        with pytest.raises(SourceMissingError):
            await requests.start(resources, both, request)
    with pytest.raises(SourceMissingError):  # it is forgotten where what is gone is removed, nowhere else
        await requests.index(resources, both, RunRequest(), LETS_GO)
    with pytest.raises(UnreadablePathError, match="Give an existing file or folder"):
        await ingest(resources, one)
    assert len(await chunks(psql)) == 3


async def test_the_weekly_rebuild_of_all_goes_on_and_deletes_nothing(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    lone = put(one.parent / "lone" / "d.md", "Delta").parent
    other = (await ingest(resources, lone, dataset="lone")).dataset_id
    shutil.rmtree(two)
    shutil.rmtree(lone)
    await requests.index_all_datasets(resources, full_rebuild=True)
    (done,), (failed,) = await requests.run_due(resources, both), await requests.run_due(resources, other)
    assert (done.state, done.counts.documents_deleted, done.skipped) == ("done", 0, {"unreadable": 1})
    assert failed.state == "failed"
    assert "the only path of dataset p/lone" in str(failed.error)
    assert len(await chunks(psql)) == 4


async def test_a_root_that_is_let_go_is_forgotten_with_its_documents(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    shutil.rmtree(two)
    run = await full(resources, both, LETS_GO)
    assert (run.counts.documents_deleted, run.counts.documents_unchanged, run.skipped) == (2, 1, {})
    assert await roots(psql) == [uri_of(one) + "/"]
    assert await names(psql) == ["a.md"]
    put(two / "b.md", "Beta")
    assert (await full(resources, both)).counts.documents_new == 0


async def test_who_lets_the_last_root_go_leaves_a_dataset_without_a_source(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    shutil.rmtree(one)
    shutil.rmtree(two)
    assert (await full(resources, both, LETS_GO)).counts.documents_deleted == 3
    assert await psql.fetchval("SELECT count(*) FROM sources") == 0
    assert await requests.index_all_datasets(resources, full_rebuild=True) == []
    with pytest.raises(NoSourceError, match="ingest files"):
        await full(resources, both)
    put(one / "a.md", "Alpha")
    run = await ingest(resources, one, include=["*.md"])
    assert (run.dataset_id, run.counts.documents_new) == (both, 1)


async def test_a_path_that_is_not_there_is_let_go_only_where_it_is_known(
    resources: Resources, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    shutil.rmtree(two)
    with pytest.raises(UnreadablePathError, match="typo"):
        await ingest(resources, one, one.with_name("typo"), allow_empty=True)
    run = await ingest(resources, one, allow_empty=True)  # of another path nothing was said
    assert run.counts.documents_deleted == 0
    assert len(await roots(psql)) == 2
    run = await ingest(resources, two, allow_empty=True, dry=True)
    assert (run.counts.documents_deleted, len(await roots(psql))) == (2, 2)
    run = await ingest(resources, two, allow_empty=True)
    assert run.counts.documents_deleted == 2
    assert await roots(psql) == [uri_of(one) + "/"]
    assert await names(psql) == ["a.md"]


async def test_a_folder_that_was_renamed_sends_nothing(
    resources: Resources, fake: FakeProvider, psql: Any, one: Path, two: Path, both: UUID
) -> None:
    asked, moved = sent(fake), Path(shutil.move(two, two.with_name("three")))
    run = await ingest(resources, moved)
    assert (run.counts.documents_new, run.counts.documents_deleted) == (2, 0)
    assert (await full(resources, both, LETS_GO)).counts.documents_deleted == 2
    assert sent(fake) == asked
    again = Path(shutil.move(moved, moved.with_name("four")))
    run = await ingest(resources, moved, again, allow_empty=True)
    assert (run.counts.documents_moved, run.counts.documents_new, run.counts.documents_deleted) == (2, 0, 0)
    assert sent(fake) == asked
    assert await roots(psql) == sorted(uri_of(path) + "/" for path in (one, again))


async def test_a_folder_in_a_folder_is_no_root_of_its_own_and_filters_reach_it(
    resources: Resources, psql: Any, two: Path
) -> None:
    drafts = put(two / "drafts" / "d.md", "Draft").parent
    run = await ingest(resources, drafts, drafts / "d.md")
    assert await roots(psql) == [uri_of(drafts) + "/"]
    run = await ingest(resources, two, exclude=["drafts/"])
    assert await roots(psql) == [uri_of(two) + "/"]
    assert run.counts.documents_deleted == 1
    assert await names(psql) == ["b.md", "c.md"]
    run = await ingest(resources, drafts, exclude=["drafts/"])  # as the folder that it is in
    assert (run.counts.documents_unchanged, run.counts.documents_new) == (2, 0)
    assert await roots(psql) == [uri_of(two) + "/"]
    with pytest.raises(Refused, match="Other filters"):
        await ingest(resources, drafts)


async def test_what_a_folder_does_not_reach_stays_a_root_of_its_own(resources: Resources, psql: Any, two: Path) -> None:
    (two / ".gitignore").write_text("out/\n")
    out, odd = put(two / "out" / "e.md", "Epsilon").parent, put(two / "f.xyz", "Phi")
    dataset_id = (await ingest(resources, two, out, odd)).dataset_id
    assert await roots(psql) == sorted([uri_of(two) + "/", uri_of(out) + "/", uri_of(odd)])
    assert (
        await ingest(resources, two)
    ).counts.documents_deleted == 0  # what is in a root of its own is not of the outer
    shutil.move(out, two.with_name("unmounted"))
    await ingest(resources, two)
    run = await full(resources, dataset_id)
    assert (run.counts.documents_deleted, run.skipped) == (0, {"unreadable": 1})
    assert await names(psql) == ["b.md", "c.md", "f.xyz", "e.md"]


async def test_an_inner_root_that_is_not_mounted_keeps_what_it_had(resources: Resources, psql: Any, two: Path) -> None:
    inner = put(two / "mnt" / "g.md", "Gamma two").parent
    await ingest(resources, inner)
    shutil.move(inner, two.with_name("unmounted"))
    run = await ingest(resources, two)
    run = await full(resources, run.dataset_id)
    assert (run.counts.documents_deleted, run.skipped) == (0, {"unreadable": 1})
    run = await requests.index_dataset(
        resources, run.dataset_id, {"files": [str(two), str(inner), str(inner / "g.md")]}
    )
    assert run.counts.documents_deleted == 0
    assert await names(psql) == ["b.md", "c.md", "g.md"]


async def test_an_inner_root_that_is_there_but_empty_is_not_believed(
    resources: Resources, psql: Any, two: Path
) -> None:
    inner = put(two / "mnt" / "g.md", "Gamma two").parent
    await ingest(resources, inner)
    shutil.move(inner / "g.md", two.with_name("unmounted"))
    with pytest.raises(EmptySourceError, match="mnt"):
        await ingest(resources, two)
    assert await names(psql) == ["b.md", "c.md", "g.md"]
    assert len(await roots(psql)) == 2


async def test_the_first_five_paths_are_named_where_all_are_asked_for(resources: Resources, tmp_path: Path) -> None:
    folders = [put(tmp_path / name / "a.md", name).parent for name in "abcdefg"]
    await ingest(resources, *folders)
    with pytest.raises(Refused, match=r"from 7 paths \('.*/a', .*/e' and 2 more\)\. Other filters"):
        await ingest(resources, folders[0], include=["*.txt"])
