"""Gemini's batch API for a program that keeps its texts and vectors itself. Exported as `evervec.GeminiBatchClient`."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import uuid4

from evervec.errors import Refused
from evervec.library.opening import Opening, opens

if TYPE_CHECKING:
    from evervec.domain.batch import RemoteState
    from evervec.embedders.gemini.batch import GeminiBatchClient

KEY_VARIABLE = "GEMINI_API_KEY"
RESULT_LINES = 1_000

ChunkId = str | int
Chunks = Mapping[ChunkId, str] | Iterable[tuple[ChunkId, str]]


class BatchVectors(dict[ChunkId, Any]):
    """The vectors of a job by chunk id, `(dim,) float32` as Google answered them; `errors` has the reason of each that failed."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[ChunkId, str] = {}


class LibraryBatchClient:
    """Gemini's batch API alone: chunks in, an id; later its state, then the vectors by chunk id. No database is needed.

    Where an event loop runs its methods are awaited, elsewhere they block. Nothing is remembered between calls: any process
    with the key and the id of a job collects it. Google keeps a job and its results for 48 hours.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        model: str = "gemini-embedding-001",
        dimensions: int = 3072,
        base_url: str | None = None,
    ) -> None:
        """Name the key (or set GEMINI_API_KEY), the model, and the width of its vectors; nothing is sent yet."""
        key = api_key or os.environ.get(KEY_VARIABLE)
        if not key:
            raise Refused(reason=f"There is no key for Gemini: give `api_key`, or set {KEY_VARIABLE}.")
        self._dimensions = dimensions
        self._opening: Opening[GeminiBatchClient] = Opening(lambda: _client(model, key, dimensions, base_url))

    @opens
    async def create_embedding_job(self, chunks: Chunks) -> str:
        """Upload the chunks, `{id: text}` or pairs of them, and start a job; return its id.

        One request starts one job: after a `TransientError` nobody knows whether it was started. Raises `Refused` for no
        chunks, two of one id, or more than a job takes, and what Google refuses as a `ProviderError`.
        """
        client, intent = self._opening.opened, uuid4()
        with tempfile.TemporaryDirectory(prefix="evervec-batch-") as folder:
            path = Path(folder) / "chunks.jsonl"
            await asyncio.to_thread(_write, client, chunks, path)
            file = await client.upload(intent, path)
        return (await client.create_embedding_job(intent, file)).external_id

    @opens
    async def get_job_status(self, job_id: str) -> "RemoteState":
        """Return the state of a job: `waiting`, `running`, `succeeded`, `failed`, …; its `over` is whether that is final."""
        return (await self._opening.opened.get_job_status(job_id)).state

    @opens
    async def download_results(self, job_id: str) -> BatchVectors:
        """Return the vectors of a job that is over, by chunk id; `errors` of the answer has the reason of each that failed.

        Raises `Refused` while the job runs and for one that has no results, `ResultsDeletedError` after 48 hours.
        """
        client, found = self._opening.opened, BatchVectors()
        job = await client.get_job_status(job_id)
        if not job.state.over:
            raise Refused(
                reason=f"Job {job_id} is {job.state}. Ask `get_job_status` again later, a job takes a day at most."
            )
        if not job.result_files and job.error:
            raise Refused(reason=f"Job {job_id} is {job.state} and has no results: {job.error}")
        async for results in client.download_results(job, lines=RESULT_LINES, dimensions=self._dimensions):
            if results.vectors is not None:
                # a part of the file is read into the same memory as the next one
                found.update(zip(map(_id_of, results.keys), results.vectors.copy(), strict=True))
            found.errors.update({_id_of(key): f"{code}: {message}" for key, code, message in results.errors})
        if job.input_file:
            await client.remove_file(job.input_file)
        return found

    def close(self) -> Coroutine[Any, Any, None]:
        """Close the connections. May be called twice."""
        return cast("Coroutine[Any, Any, None]", self._opening.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@asynccontextmanager
async def _client(
    model: str, api_key: str, dimensions: int, base_url: str | None
) -> "AsyncIterator[GeminiBatchClient]":
    from evervec.embedders.gemini.batch import GeminiBatchClient

    client = GeminiBatchClient(model, api_key=api_key, dimensions=dimensions, base_url=base_url)
    try:
        yield client
    finally:
        await client.aclose()


def _write(client: "GeminiBatchClient", chunks: Chunks, path: Path) -> None:
    """Write the input file of a job. Raises `Refused` for what no job can be made of."""
    from evervec.domain.batch import Line

    most, seen, size = client.limits, set[str](), 0
    with path.open("wb") as file:
        for chunk_id, text in chunks.items() if isinstance(chunks, Mapping) else chunks:
            key = _key_of(chunk_id)
            if key in seen:
                raise Refused(reason=f"Two chunks have the id {chunk_id!r}: their vectors could not be told apart.")
            seen.add(key)
            size += file.write(client.line(Line(key, text)))
            if len(seen) > most.rows or size > most.bytes:
                raise Refused(
                    reason=f"A job takes {most.rows:,} chunks and {most.bytes:,} bytes at most: make several."
                )
    if not seen:
        raise Refused(reason="There are no chunks. Give {id: text}.")


def _key_of(chunk_id: object) -> str:
    """Return the key of a line: JSON, so that 7 and "7" come back as what they were."""
    import orjson

    if isinstance(chunk_id, bool) or not isinstance(chunk_id, str | int):
        raise Refused(reason=f"{chunk_id!r:.100} is no id of a chunk: give a text or a whole number.")
    return orjson.dumps(chunk_id).decode()


def _id_of(key: str) -> ChunkId:
    import orjson

    found: ChunkId = orjson.loads(key)
    return found
