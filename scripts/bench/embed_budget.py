"""What the failure ladder, the budget and the check of vectors cost: the same pipeline with them and without."""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain.protocols import Vectors
from evervec.domain.spending import Reason
from evervec.pipeline.budget.allowance import Load
from evervec.pipeline.budget.meter import Answer, Meter
from evervec.pipeline.embedding import claimed_rows
from evervec.pipeline.embedding.breaker import EndpointBreaker
from evervec.pipeline.resources import Resources
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef
from scripts.bench import clock, texts
from scripts.bench.embed_pipeline import pipeline
from scripts.bench.report import Line, at_least, rate
from scripts.bench.stack import Bench, dataset, without_hnsw

ROUNDS = 8
PROMISED = 0.97


class SilentMeter(Meter):
    """A meter that sends, and counts and writes nothing."""

    async def send(
        self,
        call: Callable[[], Coroutine[Any, Any, Answer]],
        loads: Mapping[UUID | None, Load],
        *,
        reason: Reason | None = None,
        whatever: bool = False,
    ) -> Answer:
        """Send a request."""
        return await call()

    async def write(self, tx: Tx) -> None:
        """Write nothing."""


class OpenBreaker(EndpointBreaker):
    """A breaker that is never looked at."""

    async def admit(self) -> bool:
        """Return True."""
        return True


def _accept(vectors: Vectors, **_: object) -> NDArray[np.bool_]:
    return np.ones(len(vectors), dtype=np.bool_)


@contextmanager
def _bare() -> Iterator[None]:
    with (
        patch.object(claimed_rows, "Meter", SilentMeter),
        patch.object(claimed_rows, "EndpointBreaker", OpenBreaker),
        patch.object(claimed_rows, "check_vectors", _accept),
        patch.object(claimed_rows, "check_distinct", _accept),
    ):
        yield


async def run(bench: Bench) -> list[Line]:
    """20,000 pending rows, one worker, no HNSW index, the local embedder; with and without in turns."""
    written = texts.messages(bench.rows(20_000))
    async with bench.resources("budget") as resources:
        await without_hnsw(resources)
        target = await dataset(resources)
        await resources.clients.local.embed(["The weights are loaded now."])
        size = resources.settings.embed_batch
        taken = await clock.rounds(
            ROUNDS,
            {
                "with": partial(pipeline, resources, target, written, size),
                "without": partial(_without, resources, target, written, size),
            },
        )
    name = "with ladder, budget and gate, against without"
    return [rate(name, len(written), taken["with"], taken["without"], at_least(PROMISED))]


async def _without(resources: Resources, target: DatasetRef, written: Sequence[str], size: int) -> float:
    with _bare():
        return await pipeline(resources, target, written, size)
