"""A forked process is told that it can not search, instead of waiting for threads that are not there."""

import os
import select
from collections.abc import Callable

import numpy as np
import pytest

from evervec.domain.feed import DatabaseIdentity, FeedVectors, Watermark
from evervec.mirror.build import build
from evervec.mirror.faiss_library import ForkedError
from evervec.mirror.segment import Segment

ROWS = np.eye(16, dtype=np.float32)


def built() -> Segment:
    vectors = FeedVectors(np.arange(16), np.ones(16, np.int64), np.ones(16, np.int16), ROWS)
    return build(vectors, DatabaseIdentity("cluster", 1, 1, 1, 16, "schema"), Watermark(1, 1), threads=2)


def said_in_a_fork(work: Callable[[], object]) -> str:
    """Return what the child says about the work, within ten seconds."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            work()
            said = "nothing"
        except ForkedError as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    try:
        ready, _, _ = select.select([reader], [], [], 10)
        return os.read(reader, 1_000).decode() if ready else "it hangs"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_neither_searches_nor_builds() -> None:
    segment = built()
    segment.search(np.tile(ROWS, (64, 1)), 3, threads=2)
    assert "spawn" in said_in_a_fork(lambda: segment.search(ROWS, 3))
    assert "spawn" in said_in_a_fork(built)
    assert segment.search(ROWS, 1).positions[:, 0].tolist() == list(range(16))
