"""The folder of mirrors: loads, publishes, quarantines and removes files.

A complete file is left whenever a process dies.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import faiss

from evervec.domain.feed import DatabaseIdentity, Watermark
from evervec.errors import MirrorBusyError, MirrorFileError, MirrorFolderError
from evervec.mirror.disk import lock, manifest, quarantine, segment_file
from evervec.mirror.disk.manifest import Generation, Manifest
from evervec.mirror.disk.paths import MirrorPaths, mirror_files, project_folders
from evervec.mirror.segment import Segment

LOCK_WAIT_SECONDS = 2.0
READ_ATTEMPTS = 3
_FALLBACK = "until then mirrors stay in memory."
DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class LoadResult:
    """The result of loading a mirror.

    `state` is "ready" (with the segment), "absent" (there is none), "set aside" (there was an invalid one; it is in
    quarantine now) or "unreadable" (it could not be read, and stays where it is). `reason` says why. The database has the
    vectors `reread` otherwise than the segment, which its change feed does not tell.
    """

    segment: Segment | None
    state: str
    reason: str = ""
    reread: tuple[int, ...] = ()


@dataclass(frozen=True)
class PublishedState:
    """What is on the disk by manifest and footer: `generation` is the published one, `newest` the highest number."""

    generation: Generation | None = None
    newest: int = 0

    @property
    def token(self) -> str | None:
        """Return the token of the published file."""
        return self.generation.container.token if self.generation else None


class MirrorFolder:
    """The mirrors below one folder, as one process sees them. Calls block: keep them out of the event loop.

    Several processes may share a folder. Readers take no lock; a writer has a dataset's lock only while it publishes,
    waits up to `wait_seconds` for it, and is refused when the disk changed since it last looked.
    """

    def __init__(self, faiss_dir: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        self.faiss_dir = faiss_dir
        self.wait_seconds = wait_seconds
        self._seen: dict[tuple[UUID, UUID], PublishedState] = {}

    def load(self, project_id: UUID, dataset_id: UUID, identity: DatabaseIdentity) -> LoadResult:
        """Load the dataset's segment from the disk, mapped and verified. An invalid file is a result, not an error.

        The timeline and the schema of its identity may be other ones: then only a comparison tells which vectors are right.
        """
        paths = MirrorPaths(self.faiss_dir, project_id, dataset_id)
        try:
            for _ in range(READ_ATTEMPTS):
                with suppress(MirrorFileError):  # the file may have been published after its manifest was read
                    return self._read(paths, identity)
            return self._read_locked(paths, identity)
        except OSError as error:
            return LoadResult(None, "unreadable", f"{paths.bin}: {error.strerror}")

    def _read_locked(self, paths: MirrorPaths, identity: DatabaseIdentity) -> LoadResult:
        """Read again with the lock, while nobody publishes: a file that is still invalid goes into quarantine."""
        reason = f"{paths.bin}: another process is writing it"
        try:
            with lock.exclusive(paths.lock, self.wait_seconds):
                try:
                    return self._read(paths, identity)
                except MirrorFileError as error:
                    reason = str(error)
                quarantine.move_to_quarantine(paths, reason)
        except (MirrorBusyError, MirrorFolderError, OSError) as error:
            return LoadResult(None, "unreadable", f"{reason} (left where it is: {error})")
        self._remember(paths, PublishedState(None, self._newest_seen(paths)))
        return LoadResult(None, "set aside", reason)

    def _read(self, paths: MirrorPaths, identity: DatabaseIdentity) -> LoadResult:
        """Read a mirror. Raises `MirrorFileError` for an invalid file, `OSError` for what can not be read."""
        found = _manifest(paths)
        if found is None:
            _refuse_unlisted_file(paths)
            self._remember(paths, PublishedState(None, self._newest_seen(paths)))
            return LoadResult(None, "absent", "there is no file")
        try:
            with segment_file.open_regular(paths.bin) as file:
                generation = segment_file.identify(file, found)
                if generation.identity.same_database(identity) and generation.identity.space_id != identity.space_id:
                    self._remember(paths, PublishedState(generation, found.current.number))
                    return LoadResult(None, "absent", "the file is of another space")
                _check_database(generation, identity)
                segment_file.verify(file, generation.container)
                segment = segment_file.map_segment(file, paths.bin, generation)
        except FileNotFoundError:
            self._remember(paths, PublishedState(None, found.current.number))
            return LoadResult(None, "absent", "there is a manifest, and no file")
        self._remember(paths, PublishedState(generation, found.current.number))
        return LoadResult(segment, "ready", reread=generation.reread)

    def save(self, project_id: UUID, dataset_id: UUID, segment: Segment, *, written_at: str | None = None) -> Segment:
        """Publish a segment, and return it mapped from the disk.

        Raises `MirrorFolderError` when the folder can not be written, `MirrorBusyError` when another process is writing
        or has published since this process last looked (load again, and save what is newer), `ValueError` for a segment
        whose parts do not fit together. No incomplete file is left.
        """
        paths = MirrorPaths(self.faiss_dir, project_id, dataset_id)
        with _writing(paths.folder):
            with suppress(MirrorFileError):
                self._fence(paths, _published_state(paths), segment)  # before a large file is written for nothing
            paths.folder.mkdir(parents=True, exist_ok=True)
            with _temporary(paths) as path:
                draft = _draft(path, paths, segment, written_at)
                with segment_file.open_regular(path) as file:
                    mapped = segment_file.map_segment(file, path, draft)
                with lock.exclusive(paths.lock, self.wait_seconds):
                    self._publish(paths, path, draft)
        return mapped

    def _publish(self, paths: MirrorPaths, path: Path, draft: Generation) -> None:
        """Write the manifest that names both generations, then rename the file. The old file is valid until then."""
        state = self._published_or_quarantine(paths)
        self._fence(paths, state, draft)
        number = max(state.newest, self._newest_seen(paths)) + 1
        published = replace(draft, number=number)
        updated = Manifest(paths.project_id, paths.dataset_id, published, state.generation)
        _replace(paths.manifest, paths, manifest.encode(updated))
        path.rename(paths.bin)
        self._remember(paths, PublishedState(published, number))
        _sync_folder(paths.folder)

    def relabel(
        self,
        project_id: UUID,
        dataset_id: UUID,
        identity: DatabaseIdentity,
        watermark: Watermark,
        reread: tuple[int, ...],
    ) -> None:
        """Publish the file that this process loaded or saved last under another identity and watermark; its vectors stay.

        Raises `MirrorBusyError` when it is not the published one any more, `MirrorFolderError` as `save` does.
        """
        paths = MirrorPaths(self.faiss_dir, project_id, dataset_id)
        with _writing(paths.folder), lock.exclusive(paths.lock, self.wait_seconds):
            state = _published_state(paths)
            seen = self._seen.get((project_id, dataset_id), PublishedState())
            if state.generation is None or state.token != seen.token:
                raise MirrorBusyError(dataset=dataset_id, reason="another process published or removed it meanwhile")
            relabelled = replace(
                state.generation, number=state.newest + 1, identity=identity, watermark=watermark, reread=reread
            )
            _replace(paths.manifest, paths, manifest.encode(Manifest(project_id, dataset_id, relabelled)))
            self._remember(paths, PublishedState(relabelled, relabelled.number))

    def take_over(self, project_id: UUID, dataset_id: UUID, other: "MirrorFolder") -> bool:
        """Publish the file that another folder on the same disk has of a dataset, and remove it there.

        Return whether there was one. Raises `MirrorBusyError` while another process publishes, `MirrorFolderError`.
        """
        source, paths = (MirrorPaths(one.faiss_dir, project_id, dataset_id) for one in (other, self))
        moved = other._peek(project_id, dataset_id)
        if moved is None:
            return False
        with _writing(paths.folder), lock.exclusive(source.lock, self.wait_seconds):
            paths.folder.mkdir(parents=True, exist_ok=True)
            with lock.exclusive(paths.lock, self.wait_seconds):
                self._remember(paths, self._published_or_quarantine(paths))
                self._publish(paths, source.bin, moved)
        other.remove(project_id, dataset_id)
        return True

    def _published_or_quarantine(self, paths: MirrorPaths) -> PublishedState:
        try:
            return _published_state(paths)
        except MirrorFileError as error:
            quarantine.move_to_quarantine(paths, str(error))
            return PublishedState()

    def _fence(self, paths: MirrorPaths, state: PublishedState, writer: Segment | Generation) -> None:
        """Refuse a writer that was suspended while others published. Raises `MirrorBusyError`."""
        there, seen = state.generation, self._seen.get((paths.project_id, paths.dataset_id))
        if there is None:
            return
        if seen is not None and seen.token != state.token:
            raise MirrorBusyError(
                dataset=paths.dataset_id, reason=f"another process has published generation {there.number} meanwhile"
            )
        older = (writer.watermark.xmin, writer.watermark.xmax) < (there.watermark.xmin, there.watermark.xmax)
        if older and there.identity == writer.identity:
            raise MirrorBusyError(
                dataset=paths.dataset_id,
                reason=f"the one on the disk is newer (watermark {there.watermark}, not {writer.watermark})",
            )

    def generation(self, project_id: UUID, dataset_id: UUID) -> int | None:
        """Return the number of the generation on the disk, cheaply; None if there is none that could be loaded.

        Another number than last time, higher or not, means that another process has published.
        """
        there = self._peek(project_id, dataset_id)
        return there.number if there else None

    def describe(self, project_id: UUID, dataset_id: UUID) -> dict[str, Any] | None:
        """Describe what is on the disk, without loading it; None if there is nothing that could be loaded."""
        there = self._peek(project_id, dataset_id)
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

    def _peek(self, project_id: UUID, dataset_id: UUID) -> Generation | None:
        paths = MirrorPaths(self.faiss_dir, project_id, dataset_id)
        for _ in range(READ_ATTEMPTS):
            with suppress(MirrorFileError, OSError):  # as in `load`
                return _published_state(paths).generation
        return None

    def remove(self, project_id: UUID, dataset_id: UUID) -> list[Path]:
        """Remove a dataset's files, and return their paths. A process that has mapped them can go on.

        Raises `MirrorBusyError` while another process publishes, `MirrorFolderError` when they can not be removed.
        """
        paths = MirrorPaths(self.faiss_dir, project_id, dataset_id)
        with _writing(paths.folder):
            return self._remove(paths, self.wait_seconds) if paths.files() else []

    def collect(self, keep: Iterable[tuple[UUID, UUID]], *, of_database: DatabaseIdentity | None = None) -> list[Path]:
        """Remove the files of datasets that are not among `keep` (project id, dataset id), and those of dead writers.

        With `of_database` only those of that database: another one may keep its mirrors in the same folder. Returns
        what was removed. Files with names that are not ours stay; a dataset that is being published stays until the
        next time. Raises `MirrorFolderError`.
        """
        kept, removed = set(keep), list[Path]()
        with _writing(self.faiss_dir):
            for project_id, folder in project_folders(self.faiss_dir):
                files = mirror_files(folder)
                for dataset_id in sorted({file.dataset_id for file in files}):
                    if (project_id, dataset_id) in kept:
                        left = [
                            file for file in files if file.dataset_id == dataset_id and quarantine.is_abandoned(file)
                        ]
                        removed += quarantine.remove_files(left)
                        continue
                    if self._belongs_to_another(project_id, dataset_id, of_database):
                        continue
                    with suppress(MirrorBusyError):
                        removed += self._remove(MirrorPaths(self.faiss_dir, project_id, dataset_id), 0)
        return removed

    def _belongs_to_another(self, project_id: UUID, dataset_id: UUID, mine: DatabaseIdentity | None) -> bool:
        there = self._peek(project_id, dataset_id)
        return mine is not None and there is not None and not there.identity.same_database(mine)

    def _remove(self, paths: MirrorPaths, wait_seconds: float) -> list[Path]:
        there = {file.path for file in paths.files()}
        with lock.exclusive(paths.lock, wait_seconds):
            files = [file for file in paths.files() if file.pid is None or quarantine.is_abandoned(file)]
            # The lock goes last: a process that gets it after us sees that its file is gone, and creates a new one.
            removed = quarantine.remove_files(sorted(files, key=lambda file: file.path == paths.lock))
            self._seen.pop((paths.project_id, paths.dataset_id), None)
        with suppress(OSError):  # the folder stays if something else is in it
            paths.folder.rmdir()
        return [path for path in removed if path in there]

    def _remember(self, paths: MirrorPaths, state: PublishedState) -> None:
        self._seen[paths.project_id, paths.dataset_id] = state

    def _newest_seen(self, paths: MirrorPaths) -> int:
        return self._seen.get((paths.project_id, paths.dataset_id), PublishedState()).newest


def _manifest(paths: MirrorPaths) -> Manifest | None:
    """Return the dataset's manifest, None if there is none. Raises `MirrorFileError` and `OSError`."""
    try:
        with segment_file.open_regular(paths.manifest) as file:
            data = file.read(manifest.MOST_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return None
    found = manifest.decode(data)
    if (found.project_id, found.dataset_id) != (paths.project_id, paths.dataset_id):
        raise MirrorFileError(reason=f"the manifest is of dataset {found.dataset_id} in project {found.project_id}")
    return found


def _published_state(paths: MirrorPaths) -> PublishedState:
    """Return what is on the disk. Raises `MirrorFileError` for a file and manifest that do not fit, and `OSError`."""
    found = _manifest(paths)
    if found is None:
        _refuse_unlisted_file(paths)
        return PublishedState()
    try:
        with segment_file.open_regular(paths.bin) as file:
            return PublishedState(segment_file.identify(file, found), found.current.number)
    except FileNotFoundError:
        return PublishedState(None, found.current.number)


def _refuse_unlisted_file(paths: MirrorPaths) -> None:
    if os.path.lexists(paths.bin):
        raise MirrorFileError(reason="its manifest is missing")


def _check_database(generation: Generation, identity: DatabaseIdentity) -> None:
    difference = identity.foreign(generation.identity)
    if difference:
        raise MirrorFileError(reason=f"it belongs to another database: {difference}")


def _draft(path: Path, paths: MirrorPaths, segment: Segment, written_at: str | None) -> Generation:
    """Write the file of a generation that has no number yet."""
    return Generation(
        number=0,
        n=len(segment),
        container=segment_file.write(path, paths.dataset_id, segment),
        factory=segment.factory,
        tuning=segment.tuning,
        identity=segment.identity,
        watermark=segment.watermark,
        faiss=faiss.__version__,
        written_at=written_at,
    )


@contextmanager
def _temporary(paths: MirrorPaths) -> Iterator[Path]:
    """Yield a name to write to; a file that still has it at the end is removed."""
    path = paths.temporary()
    try:
        yield path
    finally:
        with suppress(OSError):  # what can not be removed now is collected later
            path.unlink(missing_ok=True)


def _replace(path: Path, paths: MirrorPaths, data: bytes) -> None:
    """Replace a file's content in one step: after a crash it is the old or the new one."""
    with _temporary(paths) as temporary:
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
    """Raise `MirrorFolderError` with a reason and advice when a folder can not be written."""
    try:
        yield
    except OSError as error:
        advice = "Set EVERVEC_FAISS_DIR to a folder that this user can write"
        if error.errno in DISK_FULL_ERRORS:
            advice = "Make room there, or set EVERVEC_FAISS_DIR to a folder on a larger disk"
        reason = error.strerror or str(error)
        raise MirrorFolderError(path=folder, reason=reason, advice=f"{advice}; {_FALLBACK}") from error
    except MirrorFileError as error:
        reason = f"what was just written there can not be read: {error}"
        raise MirrorFolderError(path=folder, reason=reason, advice=f"Look at that disk; {_FALLBACK}") from error
