"""Vectors that a program made itself of chunks that wait: checked as a provider's are, and written if the text is the same."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evervec.domain.vectors import check_vectors
from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.database.session import Tx
from evervec.store.embeddings import vectors
from evervec.store.embeddings.waiting_chunks import WaitingChunk

GIVER = "the program that gives vectors"


async def write(resources: Resources, chunks: Sequence[WaitingChunk], given: NDArray[np.float32]) -> set[int]:
    """Write `(n, dim) float32` of n chunks of one space; return the vector ids whose text was still the same.

    Raises what `check_vectors` raises, and `Refused` for chunks of several spaces, for a vector that is zero or not finite.
    """
    if not chunks:
        return set()
    spaces = {one.space_id for one in chunks}
    if len(spaces) > 1:
        raise Refused(
            reason="These chunks are of several spaces, whose vectors differ: write those of each by themselves."
        )
    matrix, space_id = np.ascontiguousarray(given, dtype=np.float32), spaces.pop()
    async with resources.database.read() as tx:
        theirs = {one.dataset_id for one in chunks}
        held = [one for one in await datasets.live(tx) if one.id in theirs and one.space_id == space_id]
    if not held:
        return set()  # deleted meanwhile, or searched in another space
    dimensions = (await resources.provider_of(held[0])).space.dimensions
    usable = check_vectors(matrix, count=len(chunks), dimensions=dimensions, provider=GIVER)
    if not usable.all():
        bad = chunks[int(np.argmin(usable))]
        raise Refused(reason=f"The vector of chunk {bad.id} is zero or not finite. Nothing was written.")

    async def once(tx: Tx) -> set[int]:
        return await vectors.update_vectors_bulk(tx, space_id, chunks, matrix)

    written = await resources.database.with_retries(once)
    if written:
        await resources.doorbell.changed(one.id for one in held)
    return written
