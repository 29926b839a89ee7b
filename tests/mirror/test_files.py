"""What is saved comes back, mapped; what is not right is set aside in words; who is behind is refused."""

import os
import re
import shutil
from dataclasses import replace
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
import xxhash

from evervec.domain.feed import DatabaseIdentity, Watermark
from evervec.errors import MirrorBusyError, MirrorFolderError
from evervec.mirror.disk import manifest, segment_file
from evervec.mirror.disk.folder import MirrorFolder
from evervec.mirror.disk.paths import MirrorPaths
from evervec.mirror.segment import Segment
from tests.mirror.stored import DATASET, IDENTITY, OTHER, PROJECT, Stored, nearest, segment

READY = ["bin", "json", "lock"]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """Return a folder that does not exist yet."""
    return Stored(tmp_path / "faiss")


def same(one: Segment, other: Segment) -> bool:
    """Return whether two segments hold the same and find the same."""
    arrays = ((one.ids, other.ids), (one.versions, other.versions), (one.kinds, other.kinds))
    facts = [(found.factory, found.tuning, found.identity, found.watermark) for found in (one, other)]
    equal = facts[0] == facts[1] and all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in arrays)
    return equal and nearest(one) == nearest(other)


@pytest.mark.parametrize(
    ("n", "factory"),
    [
        (0, "SQfp16"),
        (1, "SQfp16"),
        (3, "Flat"),
        (40, "SQfp16"),
        (400, "HNSW16,SQfp16"),
        (400, "IVF4,RaBitQfs,Refine(SQfp16)"),
    ],
)
def test_a_segment_comes_back_as_it_was_saved(stored: Stored, n: int, factory: str) -> None:
    built = segment(n, factory=factory)
    saved = stored.folder.save(PROJECT, DATASET, built)
    loaded = stored.folder.load(PROJECT, DATASET, IDENTITY)
    assert (loaded.state, loaded.reason) == ("ready", "")
    assert loaded.segment is not None
    assert same(built, saved)
    assert same(built, loaded.segment)
    assert stored.names() == READY


def test_a_loaded_segment_can_be_saved_again(stored: Stored) -> None:
    folder = stored.folder
    folder.save(PROJECT, DATASET, segment(400, factory="IVF4,RaBitQfs,Refine(SQfp16)"))
    loaded = folder.load(PROJECT, DATASET, IDENTITY).segment
    assert loaded is not None
    assert same(loaded, folder.save(PROJECT, DATASET, loaded))


def test_a_segment_is_mapped_from_its_file_and_read_only(stored: Stored) -> None:
    saved = stored.folder.save(PROJECT, DATASET, segment())
    loaded = stored.folder.load(PROJECT, DATASET, IDENTITY).segment
    assert loaded is not None
    assert not any(array.flags.writeable for one in (saved, loaded) for array in (one.ids, one.versions, one.kinds))
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert maps.read_text().count(str(stored.place.bin)) >= 4  # index and arrays, saved and loaded


def test_a_mapped_segment_outlives_its_file(stored: Stored) -> None:
    folder = stored.folder
    first = folder.save(PROJECT, DATASET, segment(40, xmin=10))
    second = folder.save(PROJECT, DATASET, segment(0, xmin=11))
    assert same(first, segment(40, xmin=10))
    third = folder.save(PROJECT, DATASET, segment(39, xmin=12))
    folder.remove(PROJECT, DATASET)
    shutil.rmtree(stored.faiss_dir)
    assert same(first, segment(40, xmin=10))
    assert same(second, segment(0, xmin=11))
    assert same(third, segment(39, xmin=12))


def test_nothing_stays_open_when_a_segment_is_gone(stored: Stored) -> None:
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("no /proc here")
    folder = stored.folder
    folder.save(PROJECT, DATASET, segment())
    before = len(list(fds.iterdir()))
    for _ in range(20):
        assert folder.load(PROJECT, DATASET, IDENTITY).state == "ready"
        folder.save(PROJECT, DATASET, segment())
    assert len(list(fds.iterdir())) <= before  # what others have forgotten to close may be collected meanwhile
    assert "(deleted)" not in "".join(
        line for line in Path("/proc/self/maps").read_text().splitlines() if str(stored.faiss_dir) in line
    )


def test_a_segment_that_does_not_fit_together_is_not_written(stored: Stored) -> None:
    good = segment()
    for bad in (replace(good, ids=good.ids[1:]), replace(good, identity=replace(IDENTITY, dimensions=17))):
        with pytest.raises(ValueError, match="ids with"):
            stored.folder.save(PROJECT, DATASET, bad)
    assert stored.names() == []


def test_status_without_loading(stored: Stored) -> None:
    folder = stored.folder
    assert folder.generation(PROJECT, DATASET) is None
    assert folder.describe(PROJECT, DATASET) is None
    for number in (1, 2):
        folder.save(PROJECT, DATASET, segment(), written_at="2026-11-21T10:00:00Z")
        assert stored.folder.generation(PROJECT, DATASET) == number
    found = stored.folder.describe(PROJECT, DATASET)
    assert found is not None
    assert found.pop("faiss")
    assert found == {
        "generation": 2,
        "n": 40,
        "bytes": stored.place.bin.stat().st_size,
        "dimensions": 16,
        "factory": "SQfp16",
        "target": 0.98,
        "recall": 0.991,
        "watermark": "10:13:11",
        "written_at": "2026-11-21T10:00:00Z",
    }
    stored.place.bin.unlink()
    assert stored.folder.generation(PROJECT, DATASET) is None
    assert stored.folder.load(PROJECT, DATASET, IDENTITY).state == "absent"
    folder.save(PROJECT, DATASET, segment())
    assert stored.folder.generation(PROJECT, DATASET) == 3


def spoil(stored: Stored, how: str) -> None:
    """Do something to the files of a dataset that is well."""
    place, other = stored.place, MirrorPaths(stored.faiss_dir, PROJECT, OTHER)
    stored.folder.save(PROJECT, OTHER, segment(40))
    data = place.bin.read_bytes()
    match how:
        case "0 bytes":
            place.bin.write_bytes(b"")
        case "torn":
            place.bin.write_bytes(data[:-100])
        case "flipped":
            place.bin.write_bytes(data[:500] + bytes([data[500] ^ 16]) + data[501:])
        case "foreign file of the same size":
            place.bin.write_bytes(bytes(len(data)))
        case "older file":
            for _ in range(2):
                stored.folder.save(PROJECT, DATASET, segment())
            place.bin.unlink()  # who has it mapped keeps it
            place.bin.write_bytes(data)
        case "file of another dataset":
            shutil.copy(other.bin, place.bin)
        case "files of another dataset":
            shutil.copy(other.bin, place.bin)
            shutil.copy(other.manifest, place.manifest)
        case "pipe":
            place.bin.unlink()
            os.mkfifo(place.bin)
        case _:
            spoil_manifest(place.manifest, how)


def spoil_manifest(path: Path, how: str) -> None:
    """Do something to a manifest."""
    data = path.read_bytes()
    match how:
        case "no manifest":
            path.unlink()
        case "not JSON":
            path.write_text("generation 1")
        case "newer manifest":
            path.write_text('{"format": 99}')
        case "vast manifest":
            path.write_bytes(data + bytes(3 << 20))
        case "folder":
            path.unlink()
            path.mkdir()
        case _:
            pytest.fail(how)


SPOILT = {
    "0 bytes": "it has 0 bytes, not",
    "torn": "it has .* bytes, not",
    "flipped": "does not match its checksum",
    "file of another dataset": f"it is the mirror of dataset {OTHER}",
    "files of another dataset": f"the manifest is of dataset {OTHER}",
    "foreign file of the same size": "it is not a file of its manifest",
    "older file": "it is not a file of its manifest",
    "no manifest": "its manifest is missing",
    "not JSON": "the manifest is not JSON",
    "newer manifest": "the manifest has the newer format 99",
    "pipe": "is not a plain file",
    "folder": "is a folder",
    "vast manifest": "the manifest is not JSON",
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_not_right_is_quarantined_and_the_next_one_is_published(stored: Stored, how: str) -> None:
    folder = stored.folder
    folder.save(PROJECT, DATASET, segment())
    spoil(stored, how)
    spoilt = [path for path in (stored.place.bin, stored.place.manifest) if path.exists()]
    loaded = folder.load(PROJECT, DATASET, IDENTITY)
    assert (loaded.state, loaded.segment) == ("set aside", None)
    assert re.search(SPOILT[how], loaded.reason), loaded.reason
    assert not stored.place.bin.exists()
    assert not stored.place.manifest.exists()
    assert all(stored.place.quarantined(path.suffix[1:], 1).exists() for path in spoilt)
    assert stored.place.quarantined("reason", 1).read_text() == f"{loaded.reason}\n"
    assert folder.load(PROJECT, DATASET, IDENTITY).state == "absent"
    folder.save(PROJECT, DATASET, segment())
    assert stored.folder.load(PROJECT, DATASET, IDENTITY).state == "ready"
    assert stored.folder.load(PROJECT, OTHER, IDENTITY).state == "ready"


@pytest.mark.parametrize("how", sorted(set(SPOILT) - {"flipped"}))
def test_a_writer_who_did_not_load_sets_aside_what_is_not_right(stored: Stored, how: str) -> None:
    stored.folder.save(PROJECT, DATASET, segment())
    spoil(stored, how)
    stored.folder.save(PROJECT, DATASET, segment(xmin=50))
    assert stored.folder.load(PROJECT, DATASET, IDENTITY).state == "ready"
    assert stored.place.quarantined("reason", 1).exists()


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (replace(IDENTITY, dimensions=17), "dimensions 16, not 17"),
        (replace(IDENTITY, cluster="9"), "cluster 7301, not 9"),
    ],
)
def test_a_file_of_another_identity_is_set_aside(stored: Stored, identity: DatabaseIdentity, reason: str) -> None:
    stored.folder.save(PROJECT, DATASET, segment())
    loaded = stored.folder.load(PROJECT, DATASET, identity)
    assert loaded.state == "set aside"
    assert reason in loaded.reason


def test_a_file_that_this_faiss_can_not_read_is_set_aside(stored: Stored) -> None:
    """Spoil only the index, as a later FAISS might spell it."""
    stored.folder.save(PROJECT, DATASET, segment())
    data = b"IxZZ" + stored.place.bin.read_bytes()[4:]
    stored.place.bin.write_bytes(data)
    known = manifest.decode(stored.place.manifest.read_bytes())
    sealed = replace(known.current.container, checksum=xxhash.xxh3_128_hexdigest(data))
    later = replace(known, current=replace(known.current, faiss="9.0.0", container=sealed))
    stored.place.manifest.write_bytes(manifest.encode(later))
    loaded = stored.folder.load(PROJECT, DATASET, IDENTITY)
    assert loaded.state == "set aside"
    assert "can not read it, written by 9.0.0" in loaded.reason


def test_two_quarantined_sets_are_kept(stored: Stored) -> None:
    folder = stored.folder
    for xmin in range(5):
        folder.save(PROJECT, DATASET, segment(xmin=xmin))
        stored.place.bin.write_bytes(b"")
        assert folder.load(PROJECT, DATASET, IDENTITY).state == "set aside"
    turns = [f"{what}.{turn}.aside" for what in ("bin", "json", "reason") for turn in (4, 5)]
    assert stored.names() == sorted([*turns, "lock"])


def test_the_folder_comes_back_when_it_was_removed_meanwhile(stored: Stored) -> None:
    folder = stored.folder
    folder.save(PROJECT, DATASET, segment())
    loaded = folder.load(PROJECT, DATASET, IDENTITY).segment
    assert loaded is not None
    shutil.rmtree(stored.faiss_dir)
    assert folder.generation(PROJECT, DATASET) is None
    folder.save(PROJECT, DATASET, loaded)
    assert stored.folder.generation(PROJECT, DATASET) == 2
    assert stored.folder.load(PROJECT, DATASET, IDENTITY).state == "ready"


def test_a_folder_below_a_file_is_an_answer_to_a_reader_and_an_error_to_a_writer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = MirrorFolder(tmp_path / "file" / "faiss")
    loaded = folder.load(PROJECT, DATASET, IDENTITY)
    assert (loaded.state, loaded.segment) == ("unreadable", None)
    assert "Not a directory" in loaded.reason
    assert folder.generation(PROJECT, DATASET) is None
    for call in (lambda: folder.save(PROJECT, DATASET, segment()), lambda: folder.collect([])):
        with pytest.raises(MirrorFolderError, match=r"file/faiss.*Not a directory.*EVERVEC_FAISS_DIR"):
            call()


def test_who_has_not_seen_the_newest_is_refused_until_he_loads(stored: Stored) -> None:
    one, other = stored.folder, stored.folder
    one.save(PROJECT, DATASET, segment(xmin=10))
    assert other.load(PROJECT, DATASET, IDENTITY).state == "ready"
    one.save(PROJECT, DATASET, segment(xmin=11))
    with pytest.raises(MirrorBusyError, match="published generation 2 meanwhile"):
        other.save(PROJECT, DATASET, segment(xmin=12))
    assert other.load(PROJECT, DATASET, IDENTITY).state == "ready"
    other.save(PROJECT, DATASET, segment(xmin=12))
    assert stored.folder.generation(PROJECT, DATASET) == 3
    assert stored.names() == READY


def test_who_saw_nothing_is_refused_when_there_is_something(stored: Stored) -> None:
    folder = stored.folder
    assert folder.load(PROJECT, DATASET, IDENTITY).state == "absent"
    stored.folder.save(PROJECT, DATASET, segment(xmin=10))
    with pytest.raises(MirrorBusyError):
        folder.save(PROJECT, DATASET, segment(xmin=11))


@pytest.mark.parametrize(("xmin", "xmax", "refused"), [(9, 99, True), (10, 12, True), (10, 13, False), (11, 11, False)])
def test_an_older_watermark_never_replaces_a_newer_one(stored: Stored, xmin: int, xmax: int, refused: bool) -> None:
    stored.folder.save(PROJECT, DATASET, segment(xmin=10))
    later = replace(segment(), watermark=Watermark(xmin, xmax))
    if refused:
        with pytest.raises(MirrorBusyError, match="the one on the disk is newer"):
            stored.folder.save(PROJECT, DATASET, later)
    else:
        stored.folder.save(PROJECT, DATASET, later)
    assert stored.folder.generation(PROJECT, DATASET) == (1 if refused else 2)


def test_watermarks_of_two_lives_are_not_compared(stored: Stored) -> None:
    stored.folder.save(PROJECT, DATASET, segment(xmin=1000))
    stored.folder.save(PROJECT, DATASET, segment(xmin=10, identity=replace(IDENTITY, timeline=2)))
    assert stored.folder.generation(PROJECT, DATASET) == 2


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publish from another process at the worst moment.

    The old file was read and verified, and FAISS has not opened it.
    """
    stored.folder.save(PROJECT, DATASET, segment(40, xmin=10))
    verify = segment_file.verify

    def verify_and_publish(file: FileIO, known: manifest.FileLayout) -> None:
        verify(file, known)
        monkeypatch.undo()
        stored.folder.save(PROJECT, DATASET, segment(40, xmin=11, factory="Flat"))

    monkeypatch.setattr(segment_file, "verify", verify_and_publish)
    loaded = stored.folder.load(PROJECT, DATASET, IDENTITY)
    assert loaded.segment is not None, loaded
    assert (loaded.segment.watermark.xmin, type(loaded.segment.index).__name__) == (11, "IndexFlatIP")


def test_a_file_is_published_under_another_identity_as_it_is(stored: Stored) -> None:
    folder = stored.folder
    folder.save(PROJECT, DATASET, segment(xmin=500))
    promoted = replace(IDENTITY, timeline=2)
    loaded = stored.folder.load(PROJECT, DATASET, promoted)
    assert loaded.segment is not None
    assert (loaded.segment.identity, loaded.reread) == (IDENTITY, ())
    before = stored.place.bin.read_bytes()
    folder.relabel(PROJECT, DATASET, promoted, Watermark(7, 9, (8,)), (3, 1))
    again = stored.folder.load(PROJECT, DATASET, promoted)
    assert again.segment is not None
    assert same(again.segment, replace(segment(xmin=500), identity=promoted, watermark=Watermark(7, 9, (8,))))
    assert (again.reread, stored.place.bin.read_bytes()) == ((3, 1), before)
    assert stored.folder.generation(PROJECT, DATASET) == 2
    folder.save(PROJECT, DATASET, segment(xmin=8, identity=promoted))
    after = stored.folder.load(PROJECT, DATASET, promoted)
    assert (after.state, after.reread) == ("ready", ())


@pytest.mark.parametrize("meanwhile", ["published", "removed", "never looked"])
def test_a_file_that_is_not_the_one_that_was_compared_keeps_its_identity(stored: Stored, meanwhile: str) -> None:
    folder = stored.folder
    if meanwhile == "never looked":
        stored.folder.save(PROJECT, DATASET, segment())
    else:
        folder.save(PROJECT, DATASET, segment())
    if meanwhile == "published":
        other = stored.folder
        assert other.load(PROJECT, DATASET, IDENTITY).state == "ready"
        other.save(PROJECT, DATASET, segment(xmin=50))
    elif meanwhile == "removed":
        stored.place.bin.unlink()
    before = stored.names()
    with pytest.raises(MirrorBusyError, match="meanwhile"):
        folder.relabel(PROJECT, DATASET, replace(IDENTITY, timeline=2), Watermark(7, 9), ())
    assert stored.names() == before
