"""The FAISS module, set up once, and how many threads it uses. Import FAISS from here."""

import os
from typing import Any

import faiss as library

# FAISS's type stubs lack the parameters of a search and the concrete types of indexes.
faiss: Any = library

# From 1.14 on FAISS treats up to 128,000 numbers as a small input, and scans it six times slower than with BLAS.
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


def use_threads(threads: int) -> None:
    """Set how many threads FAISS calls from this thread use; OpenMP keeps the number for each calling thread.

    Raises `ForkedError` in a forked process: the threads of its parent do not exist there, and FAISS would wait for
    them for ever.
    """
    if _forked:
        raise ForkedError
    faiss.omp_set_num_threads(max(1, threads))
