"""A segment as one file: the FAISS index first, so that FAISS can map it, then the arrays, then a footer.

The footer (64 bytes: magic, token, dataset) tells which generation of which dataset a file is without reading all.
"""

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID, uuid4

import faiss
import numpy as np
import xxhash
from numpy.typing import NDArray

from evervec.errors import MirrorFileError
from evervec.mirror.disk.manifest import FileLayout, Generation, Manifest
from evervec.mirror.segment import Segment

ALIGNMENT = 64
BUFFER_BYTES = 1 << 20
FOOTER = struct.Struct("<8s16s16s24x")
MAGIC = b"evervec\1"


class _Hashed:
    """A writer that also hashes what it writes, in one pass."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hash = xxhash.xxh3_128()
        self.length = 0

    def write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.hash.update(data)
        self.length += len(data)

    def aligned(self, array: NDArray[Any]) -> int:
        """Write an array from the next aligned offset on, and return the offset."""
        self.write(bytes(-self.length % ALIGNMENT))
        offset = self.length
        self.write(np.ascontiguousarray(array).view(np.uint8).data)
        return offset


def write(path: Path, dataset_id: UUID, segment: Segment) -> FileLayout:
    """Write a segment to a new file, sync it to the disk, and return its layout.

    Raises `OSError` when it can not be written, `ValueError` for a segment whose parts do not fit together.
    """
    n, lengths = len(segment), {len(segment.versions), len(segment.kinds), segment.index.ntotal}
    if lengths != {n} or segment.index.d != segment.identity.dimensions:
        raise ValueError(f"{n} ids with {lengths} values, {segment.index.d} dimensions in {segment.identity}")
    token = uuid4()
    with path.open("xb", buffering=BUFFER_BYTES) as file:
        hashed = _Hashed(file)
        # Not by path: FAISS would lose the last part of its buffer without an error when the disk is full.
        writer = faiss.PyCallbackIOWriter(hashed.write, BUFFER_BYTES)  # type: ignore[attr-defined]  # not in its stubs
        faiss.write_index(segment.index, writer)
        blob = hashed.length
        ids, versions = (hashed.aligned(array.astype("<i8", copy=False)) for array in (segment.ids, segment.versions))
        kinds = hashed.aligned(segment.kinds.astype("<i2", copy=False))
        hashed.aligned(np.frombuffer(FOOTER.pack(MAGIC, token.bytes, dataset_id.bytes), np.uint8))
        file.flush()
        os.fsync(file.fileno())
    return FileLayout(token.hex, hashed.hash.hexdigest(), hashed.length, blob, ids, versions, kinds)


@contextmanager
def open_regular(path: Path) -> Iterator[FileIO]:
    """Open a file for reading, unbuffered. Raises `MirrorFileError` for what is not a regular file, and `OSError`."""
    try:
        file = FileIO(path, opener=_without_waiting)
    except IsADirectoryError:
        raise MirrorFileError(reason=f"{path.name} is a folder") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise MirrorFileError(reason=f"{path.name} is not a plain file")
        yield file


def _without_waiting(path: str, flags: int) -> int:
    """Open without blocking: opening a pipe would otherwise wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def identify(file: FileIO, manifest: Manifest) -> Generation:
    """Return the manifest's generation that a file is, by its length and footer alone.

    Raises `MirrorFileError` when it is none of them.
    """
    size = os.fstat(file.fileno()).st_size
    fitting = [generation for generation in manifest.generations if generation.container.bytes == size]
    footer = os.pread(file.fileno(), FOOTER.size, max(size - FOOTER.size, 0))
    magic, token, dataset = FOOTER.unpack(footer) if len(footer) == FOOTER.size else (b"", b"", b"")
    for generation in fitting:
        if magic == MAGIC and token.hex() == generation.container.token and dataset == manifest.dataset_id.bytes:
            return generation
    if magic == MAGIC and dataset != manifest.dataset_id.bytes:
        raise MirrorFileError(reason=f"it is the mirror of dataset {UUID(bytes=dataset)}")
    if not fitting:
        wanted = " or ".join(str(generation.container.bytes) for generation in manifest.generations)
        raise MirrorFileError(reason=f"it has {size} bytes, not {wanted}")
    raise MirrorFileError(reason="it is not a file of its manifest")


def verify(file: FileIO, container: FileLayout) -> None:
    """Read all of a file, which also brings it into memory. Raises `MirrorFileError` when the checksum differs."""
    digest, buffer = xxhash.xxh3_128(), bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    file.seek(0)
    while count := file.readinto(buffer):
        digest.update(view[:count])
    if digest.hexdigest() != container.checksum:
        raise MirrorFileError(reason="it does not match its checksum")


def map_segment(file: FileIO, path: Path, generation: Generation) -> Segment:
    """Return the segment in an open file, mapped and not copied. It stays valid after the file is unlinked.

    Raises `MirrorFileError` when FAISS can not read it, when it is not what the manifest says, or when `path` is
    another file by now.
    """
    container, n = generation.container, generation.n
    index = _index(path, generation)
    if not _is_file(path, file):
        raise MirrorFileError(reason="it was replaced while it was read")
    if index.ntotal != n or index.d != generation.identity.dimensions:
        raise MirrorFileError(reason=f"FAISS reads {index.ntotal} vectors of {index.d} dimensions in it")
    mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
    return Segment(
        index=index,
        factory=generation.factory,
        tuning=generation.tuning,
        ids=np.frombuffer(mapped, "<i8", n, container.ids),
        versions=np.frombuffer(mapped, "<i8", n, container.versions),
        kinds=np.frombuffer(mapped, "<i2", n, container.kinds),
        identity=generation.identity,
        watermark=generation.watermark,
    )


def _index(path: Path, generation: Generation) -> faiss.Index:
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        versions = f"FAISS {faiss.__version__} can not read it, written by {generation.faiss}"
        raise MirrorFileError(reason=f"{versions}: {str(error)[-200:]}") from None


def _is_file(path: Path, file: FileIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
