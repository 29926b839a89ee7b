"""How many threads FAISS uses, and where it must not be used at all. Import FAISS from here: it is set up once."""

import os
from typing import Any

import faiss as library

# Its type stubs know neither the parameters of a search nor what an index turns out to be.
faiss: Any = library

# From 1.14 on FAISS takes a batch for small until it has 128,000 numbers, and scans it six times slower than with BLAS.
faiss.cvar.distance_compute_blas_threshold = 4096

_forked = False


class ForkedError(RuntimeError):
    """FAISS can not be used in a forked process; start it with spawn."""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


def _after_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)


def use(threads: int) -> None:
    """Let what follows in this thread use that many threads; OpenMP keeps the number for each calling thread.

    Raises `ForkedError` in a forked process: the threads of its parent are not there, and FAISS would wait for them
    for ever.
    """
    if _forked:
        raise ForkedError
    faiss.omp_set_num_threads(max(1, threads))
