"""The folder of mirrors: loads, publishes, sets aside and collects files. Whatever dies when, a whole file is left."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import faiss

from evervec.domain.feed import DatabaseIdentity
from evervec.errors import MirrorBusyError, MirrorFileError, MirrorFolderError
from evervec.mirror.disk import asides, container, lock, manifest, paths
from evervec.mirror.disk.manifest import Generation, Manifest
from evervec.mirror.disk.paths import Place
from evervec.mirror.segment import Segment

PATIENCE_SECONDS = 2.0
GLANCES = 3
MEANWHILE = "until then mirrors stay in memory."
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Loaded:
    """What loading came to.

    `state` is "ready" (with the segment), "absent" (there is none), "set aside" (there was one that could not be used;
    it is out of the way now) or "unreadable" (it could not be used, and stays where it is). `reason` says why.
    """

    segment: Segment | None
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Standing:
    """What is on the disk by manifest and footer: `generation` is the published one, `newest` the highest number."""

    generation: Generation | None = None
    newest: int = 0

    @property
    def token(self) -> str | None:
        """Which file it is."""
        return self.generation.container.token if self.generation else None


class Folder:
    """The mirrors below one folder, as one process sees them. Calls block: keep them out of the event loop.

    Several processes may share a folder. Readers take no lock; a writer has a dataset's lock for the moment of
    publishing, waits up to `patience` seconds for it, and is refused when the disk is not as it last saw it.
    """

    def __init__(self, faiss_dir: Path, *, patience: float = PATIENCE_SECONDS) -> None:
        self.faiss_dir = faiss_dir
        self.patience = patience
        self._seen: dict[tuple[UUID, UUID], Standing] = {}

    def load(self, project_id: UUID, dataset_id: UUID, identity: DatabaseIdentity) -> Loaded:
        """The dataset's segment from the disk, mapped and read through once. A bad file is an answer, not an error."""
        place = Place(self.faiss_dir, project_id, dataset_id)
        try:
            for _ in range(GLANCES):
                with suppress(MirrorFileError):  # perhaps the file was published after its manifest was read
                    return self._read(place, identity)
            return self._read_locked(place, identity)
        except OSError as error:
            return Loaded(None, "unreadable", f"{place.bin}: {error.strerror}")

    def _read_locked(self, place: Place, identity: DatabaseIdentity) -> Loaded:
        """Look again where nobody publishes meanwhile: what is still not right then is set aside."""
        reason = f"{place.bin}: another process is writing it"
        try:
            with lock.held(place.lock, self.patience):
                try:
                    return self._read(place, identity)
                except MirrorFileError as error:
                    reason = str(error)
                asides.set_aside(place, reason)
        except (MirrorBusyError, MirrorFolderError, OSError) as error:
            return Loaded(None, "unreadable", f"{reason} (left where it is: {error})")
        self._saw(place, Standing(None, self._newest_seen(place)))
        return Loaded(None, "set aside", reason)

    def _read(self, place: Place, identity: DatabaseIdentity) -> Loaded:
        """Raises `MirrorFileError` for what is not right, `OSError` for what can not be read."""
        known = _manifest(place)
        if known is None:
            _no_file(place)
            self._saw(place, Standing(None, self._newest_seen(place)))
            return Loaded(None, "absent", "there is no file")
        try:
            with container.opened(place.bin) as file:
                generation = container.identify(file, known)
                _same_identity(generation, identity)
                container.verify(file, generation.container)
                segment = container.map_segment(file, place.bin, generation)
        except FileNotFoundError:
            self._saw(place, Standing(None, known.current.number))
            return Loaded(None, "absent", "there is a manifest, and no file")
        self._saw(place, Standing(generation, known.current.number))
        return Loaded(segment, "ready")

    def save(self, project_id: UUID, dataset_id: UUID, segment: Segment, *, written_at: str | None = None) -> Segment:
        """Publish a segment, and answer it as it is on the disk now, mapped.

        Raises `MirrorFolderError` when the folder can not be written, `MirrorBusyError` when somebody else is writing
        or has published since this process last looked (load again, and save what is newer), `ValueError` for a
        segment that does not fit together. Nothing half-done is left.
        """
        place = Place(self.faiss_dir, project_id, dataset_id)
        with _writing(place.folder):
            with suppress(MirrorFileError):
                self._fence(place, _standing(place), segment)  # before a large file is written for nothing
            place.folder.mkdir(parents=True, exist_ok=True)
            with _temporary(place) as path:
                draft = _draft(path, place, segment, written_at)
                with container.opened(path) as file:
                    mapped = container.map_segment(file, path, draft)
                with lock.held(place.lock, self.patience):
                    self._publish(place, path, draft)
        return mapped

    def _publish(self, place: Place, path: Path, draft: Generation) -> None:
        """The manifest first, naming both; then the file. Between the two, and if we die there, the old one is good."""
        standing = self._standing_or_aside(place)
        self._fence(place, standing, draft)
        number = max(standing.newest, self._newest_seen(place)) + 1
        published = replace(draft, number=number)
        known = Manifest(place.project_id, place.dataset_id, published, standing.generation)
        _replace(place.manifest, place, manifest.encode(known))
        path.rename(place.bin)
        self._saw(place, Standing(published, number))
        _sync_folder(place.folder)

    def _standing_or_aside(self, place: Place) -> Standing:
        try:
            return _standing(place)
        except MirrorFileError as error:
            asides.set_aside(place, str(error))
            return Standing()

    def _fence(self, place: Place, standing: Standing, writer: Segment | Generation) -> None:
        """Refuse a writer who slept while others published. Raises `MirrorBusyError`."""
        there, seen = standing.generation, self._seen.get((place.project_id, place.dataset_id))
        if there is None:
            return
        if seen is not None and seen.token != standing.token:
            raise MirrorBusyError(
                dataset=place.dataset_id, reason=f"another process has published generation {there.number} meanwhile"
            )
        older = (writer.watermark.xmin, writer.watermark.xmax) < (there.watermark.xmin, there.watermark.xmax)
        if older and there.identity == writer.identity:
            raise MirrorBusyError(
                dataset=place.dataset_id,
                reason=f"the one on the disk is newer (watermark {there.watermark}, not {writer.watermark})",
            )

    def generation(self, project_id: UUID, dataset_id: UUID) -> int | None:
        """The number of the generation on the disk, cheaply; None when there is none that could be loaded.

        Another number than last time, higher or not, means that another process has published.
        """
        there = self._glance(project_id, dataset_id)
        return there.number if there else None

    def describe(self, project_id: UUID, dataset_id: UUID) -> dict[str, Any] | None:
        """What is on the disk, for a status, without loading it; None when there is nothing that could be loaded."""
        there = self._glance(project_id, dataset_id)
        if there is None:
            return None
        return {
            "generation": there.number,
            "n": there.n,
            "bytes": there.container.bytes,
            "dimensions": there.identity.dimensions,
            "factory": there.factory,
            "target": there.tuning.target,
            "recall": there.tuning.recall,
            "watermark": str(there.watermark),
            "faiss": there.faiss,
            "written_at": there.written_at,
        }

    def _glance(self, project_id: UUID, dataset_id: UUID) -> Generation | None:
        place = Place(self.faiss_dir, project_id, dataset_id)
        for _ in range(GLANCES):
            with suppress(MirrorFileError, OSError):  # as in `load`
                return _standing(place).generation
        return None

    def remove(self, project_id: UUID, dataset_id: UUID) -> list[Path]:
        """Remove a dataset's files, and answer which. Who has them mapped keeps them.

        Raises `MirrorBusyError` while another process publishes, `MirrorFolderError` when they can not be removed.
        """
        place = Place(self.faiss_dir, project_id, dataset_id)
        with _writing(place.folder):
            return self._remove(place, self.patience) if place.files() else []

    def collect(self, keep: Iterable[tuple[UUID, UUID]], *, of: DatabaseIdentity | None = None) -> list[Path]:
        """Remove the files of datasets that are not among `keep` (project id, dataset id), and what dead writers left.

        With `of` only those of that database: another one may keep its mirrors in the same folder.
        Answers what was removed. Files with names that are not ours stay; a dataset that is being published stays until
        the next time. Raises `MirrorFolderError`.
        """
        kept, removed = set(keep), list[Path]()
        with _writing(self.faiss_dir):
            for project_id, folder in paths.project_folders(self.faiss_dir):
                files = paths.known_files(folder)
                for dataset_id in sorted({known.dataset_id for known in files}):
                    if (project_id, dataset_id) in kept:
                        left = [
                            known for known in files if known.dataset_id == dataset_id and asides.is_left_over(known)
                        ]
                        removed += asides.unlinked(left)
                        continue
                    if self._is_anothers(project_id, dataset_id, of):
                        continue
                    with suppress(MirrorBusyError):
                        removed += self._remove(Place(self.faiss_dir, project_id, dataset_id), 0)
        return removed

    def _is_anothers(self, project_id: UUID, dataset_id: UUID, mine: DatabaseIdentity | None) -> bool:
        there = self._glance(project_id, dataset_id)
        return mine is not None and there is not None and not there.identity.same_database(mine)

    def _remove(self, place: Place, patience: float) -> list[Path]:
        there = {known.path for known in place.files()}
        with lock.held(place.lock, patience):
            files = [known for known in place.files() if known.pid is None or asides.is_left_over(known)]
            # The lock goes last: whoever gets it from us then sees that it is gone, and makes a new one.
            removed = asides.unlinked(sorted(files, key=lambda known: known.path == place.lock))
            self._seen.pop((place.project_id, place.dataset_id), None)
        with suppress(OSError):  # something else is in the folder: then it stays
            place.folder.rmdir()
        return [path for path in removed if path in there]

    def _saw(self, place: Place, standing: Standing) -> None:
        self._seen[place.project_id, place.dataset_id] = standing

    def _newest_seen(self, place: Place) -> int:
        return self._seen.get((place.project_id, place.dataset_id), Standing()).newest


def _manifest(place: Place) -> Manifest | None:
    """The dataset's manifest, None when there is none. Raises `MirrorFileError` and `OSError`."""
    try:
        with container.opened(place.manifest) as file:
            data = file.read(manifest.MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    known = manifest.decode(data)
    if (known.project_id, known.dataset_id) != (place.project_id, place.dataset_id):
        raise MirrorFileError(reason=f"the manifest is of dataset {known.dataset_id} in project {known.project_id}")
    return known


def _standing(place: Place) -> Standing:
    """What is on the disk. Raises `MirrorFileError` when that is no file and manifest that fit, and `OSError`."""
    known = _manifest(place)
    if known is None:
        _no_file(place)
        return Standing()
    try:
        with container.opened(place.bin) as file:
            return Standing(container.identify(file, known), known.current.number)
    except FileNotFoundError:
        return Standing(None, known.current.number)


def _no_file(place: Place) -> None:
    if os.path.lexists(place.bin):
        raise MirrorFileError(reason="its manifest is missing")


def _same_identity(generation: Generation, identity: DatabaseIdentity) -> None:
    difference = identity.difference(generation.identity)
    if difference:
        raise MirrorFileError(reason=f"it belongs to another database identity: {difference}")


def _draft(path: Path, place: Place, segment: Segment, written_at: str | None) -> Generation:
    """Write the file of a generation that has no number yet."""
    return Generation(
        number=0,
        n=len(segment),
        container=container.write(path, place.dataset_id, segment),
        factory=segment.factory,
        tuning=segment.tuning,
        identity=segment.identity,
        watermark=segment.watermark,
        faiss=faiss.__version__,
        written_at=written_at,
    )


@contextmanager
def _temporary(place: Place) -> Iterator[Path]:
    """A name to write to; whatever still has it at the end is removed."""
    path = place.temporary()
    try:
        yield path
    finally:
        with suppress(OSError):  # what can not go now is collected later
            path.unlink(missing_ok=True)


def _replace(path: Path, place: Place, data: bytes) -> None:
    """Have these bytes on the disk under a name, or what was there before: nothing in between."""
    with _temporary(place) as temporary:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in words a user understands why a folder can not be written."""
    try:
        yield
    except OSError as error:
        advice = "Set EVERVEC_FAISS_DIR to a folder that this user can write"
        if error.errno in FULL:
            advice = "Make room there, or set EVERVEC_FAISS_DIR to a folder on a larger disk"
        reason = error.strerror or str(error)
        raise MirrorFolderError(path=folder, reason=reason, advice=f"{advice}; {MEANWHILE}") from error
    except MirrorFileError as error:
        reason = f"what was just written there can not be read: {error}"
        raise MirrorFolderError(path=folder, reason=reason, advice=f"Look at that disk; {MEANWHILE}") from error
