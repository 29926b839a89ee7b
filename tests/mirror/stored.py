"""Small segments for tests of the folder of mirrors, and what several processes must agree on about them."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import faiss
import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import DatabaseIdentity, Watermark
from evervec.mirror.disk.folder import MirrorFolder
from evervec.mirror.disk.paths import MirrorPaths
from evervec.mirror.segment import Segment, Tuning

PROJECT = UUID("11111111-1111-4111-8111-111111111111")
DATASET = UUID("22222222-2222-4222-8222-222222222222")
OTHER = UUID("33333333-3333-4333-8333-333333333333")
IDENTITY = DatabaseIdentity(cluster="7301", timeline=1, database=5, space_id=3, dimensions=16, schema="0007")


@dataclass(frozen=True)
class Stored:
    """A folder, and the one dataset in it that a test is about."""

    faiss_dir: Path

    @property
    def folder(self) -> MirrorFolder:
        """Return the folder as a new process sees it. It waits little: no other process is at work in most tests."""
        return MirrorFolder(self.faiss_dir, wait_seconds=0.05)

    @property
    def place(self) -> MirrorPaths:
        """Return the paths of the dataset's files."""
        return MirrorPaths(self.faiss_dir, PROJECT, DATASET)

    def names(self) -> list[str]:
        """Return the files in the project's folder, without the dataset's id."""
        return sorted(path.name.removeprefix(f"{DATASET}.") for path in self.place.folder.iterdir())


def rows(n: int, dimensions: int = IDENTITY.dimensions) -> NDArray[np.float32]:
    """Return n vectors of length 1, always the same."""
    found = np.random.default_rng(7).standard_normal((n, dimensions), dtype=np.float32)
    faiss.normalize_L2(found)
    return found


def segment(n: int = 40, *, xmin: int = 10, identity: DatabaseIdentity = IDENTITY, factory: str = "SQfp16") -> Segment:
    """Return a segment of n vectors as they were at watermark `xmin`."""
    index = faiss.index_factory(identity.dimensions, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(rows(max(n, 400), identity.dimensions))
    if n:
        index.add(rows(n, identity.dimensions))
    return Segment(
        index=index,
        factory=factory,
        tuning=Tuning(target=0.98, recall=0.991, sampled=200),
        ids=np.arange(n, dtype=np.int64) + 1000,
        versions=np.full(n, xmin, np.int64),
        kinds=np.arange(n, dtype=np.int16) % 3,
        identity=identity,
        watermark=Watermark(xmin, xmin + 3, (xmin + 1,)),
    )


def nearest(segment: Segment) -> list[list[int]]:
    """Return the positions that FAISS finds for some vectors, most of which it holds, as it was set up."""
    found: list[list[int]] = segment.index.search(rows(50, segment.identity.dimensions), 3)[1].tolist()
    return found
