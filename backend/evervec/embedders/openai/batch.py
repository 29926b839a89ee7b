"""OpenAI's batch API: files up, one request that creates a job, polls, files down; what a line looks like is elsewhere.

https://platform.openai.com/docs/guides/batch. It has no idempotency key: two requests are two jobs and two bills, so
nothing is sent twice in here, and whatever leaves open whether a job was made is a `TransientError`.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

from evervec.domain.batch import (
    BatchLimits,
    Line,
    MediaLine,
    RemoteFile,
    RemoteJob,
    RemoteState,
    Results,
    remote_name,
)
from evervec.embedders import jsonl
from evervec.embedders.openai.jobs import INTENT, DeletedFile, OpenAIBatch, OpenAIFile, as_file, as_job
from evervec.embedders.openai.lines import embedding_line, media_line, reader
from evervec.errors import BadInputError, BadResponseError, ConfigError, ResultsDeletedError, TransientError
from evervec.vendors.http import Deadlines
from evervec.vendors.openai.client import OpenAIClient
from evervec.vendors.openai.refusals import NotThereError, StateConflictError

OPENAI_QUEUED_TOKENS: Final = 1_000_000
"""Tokens of all our jobs that run at a time. OpenAI's limit depends on account and model, no call tells it, and a job
beyond it fails as a whole (`token_limit_exceeded`). The first paid tier has 3,000,000 for the models that embed; a
third of it leaves room for whatever else the account does."""

OPENAI_BATCH_LIMITS: Final = BatchLimits(rows=50_000, bytes=190_000_000, queued_tokens=OPENAI_QUEUED_TOKENS)
"""50,000 lines are OpenAI's, as are 200 MB, of which a margin is left."""

Endpoint = Literal["/v1/embeddings", "/v1/chat/completions"]


class OpenAIBatchClient:
    """The `BatchClient` of OpenAI: a job is a batch, its intent is in the metadata, a remote name is a file's id."""

    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        base_url: str | None = None,
        name: str = "openai",
        dimensions: int | None = None,
        chat_model: str | None = None,
        document_prefix: str = "",
        deadlines: Deadlines | None = None,
    ) -> None:
        self._name, self._model, self._chat_model, self._dimensions = name, model, chat_model, dimensions
        self._prefix = document_prefix
        self._client = OpenAIClient(
            provider=name, model=model, api_key=api_key, base_url=base_url, deadlines=deadlines, max_bytes=32 << 20
        )
        self._files = self._client.files.with_streaming_response
        self._batches = self._client.batches.with_streaming_response

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._name

    @property
    def limits(self) -> BatchLimits:
        """Return the limits of one file and of all jobs."""
        return OPENAI_BATCH_LIMITS

    def line(self, line: Line) -> bytes:
        """Return one line of an input file that asks for a vector. Raise `BadInputError` for a text that is not Unicode."""
        prefixed = Line(line.key, self._prefix + line.text)
        return embedding_line(prefixed, self._name, self._model, self._dimensions)

    def media_line(self, line: MediaLine) -> bytes:
        """Return one line that asks for a description. Raise `BadInputError` and `ConfigError` as the protocol says."""
        if not self._chat_model:
            raise ConfigError(self._name, "no chat model is set, and only one can describe pictures and sounds.")
        return media_line(line, self._name, self._chat_model)

    async def upload(self, intent: UUID, path: Path) -> str:
        """Upload an input file; one of the same name and size is kept as it is, another one replaced."""
        filename, size = f"{remote_name(intent)}.jsonl", (await asyncio.to_thread(path.stat)).st_size
        async with aclosing(self._client.listed(self._files.list, OpenAIFile, purpose="batch")) as files:
            there = [file async for file in files if file.filename == filename]
        for file in there:
            if file.bytes == size and file.status != "error":
                return file.id
        for file in there:
            await self.remove_file(file.id)
        with await asyncio.to_thread(path.open, "rb") as content:
            part = (filename, content, "application/jsonl")
            sent = await self._client.ask(self._files.create(file=part, purpose="batch"), OpenAIFile, uploads=True)
        if sent.bytes not in (None, size):
            raise BadResponseError(self._name, f"{sent.bytes:,} of {size:,} bytes arrived of {filename}")
        return sent.id

    async def create_embedding_job(self, intent: UUID, file: str) -> RemoteJob:
        """Create a batch of embeddings: exactly one request."""
        return await self._create(intent, file, "/v1/embeddings")

    async def describe_media(self, intent: UUID, file: str) -> RemoteJob:
        """Create a batch of chat completions: exactly one request."""
        return await self._create(intent, file, "/v1/chat/completions")

    async def get_job_status(self, external_id: str) -> RemoteJob:
        """Return the state of a batch; one that the API does not know is `GONE`."""
        try:
            return as_job(await self._client.ask(self._batches.retrieve(external_id), OpenAIBatch))
        except NotThereError as problem:
            return RemoteJob(external_id, RemoteState.GONE, "not found", error=problem.detail)

    async def jobs(self, since: datetime) -> AsyncGenerator[RemoteJob, None]:
        """Yield our jobs created at or after this second, newest first: OpenAI's times have no fractions."""
        second = int(since.timestamp())
        async with aclosing(self._client.listed(self._batches.list, OpenAIBatch)) as batches:
            async for batch in batches:
                if batch.created_at is not None and batch.created_at < second:
                    return
                job = as_job(batch)
                if job.intent is not None:
                    yield job

    async def download_results(
        self, job: RemoteJob, *, lines: int, dimensions: int | None
    ) -> AsyncGenerator[Results, None]:
        """Yield the lines of the output file, then those of the error file. Raise as the protocol says."""
        read = reader(self._name, self._model if dimensions else self._chat_model or "", texts=dimensions is None)
        for file in job.result_files:
            try:
                async with (
                    aclosing(self._client.pieces(self._files.content(file))) as pieces,
                    aclosing(
                        jsonl.groups(jsonl.lines(pieces, provider=self._name), read, size=lines, dimensions=dimensions)
                    ) as groups,
                ):
                    async for results in groups:
                        yield results
            except NotThereError as problem:
                raise ResultsDeletedError(self._name, problem.detail) from None

    async def cancel(self, external_id: str) -> None:
        """Ask OpenAI to cancel a batch; one that is over or gone is no error."""
        try:
            await self._client.ask(self._batches.cancel(external_id), OpenAIBatch)
        except NotThereError:
            return
        except (BadInputError, StateConflictError):
            # Refused because it is over or being cancelled already? Its state tells, the wording may change.
            job = await self.get_job_status(external_id)
            if not job.state.over and job.said != "cancelling":
                raise

    async def remove_job(self, external_id: str) -> None:
        """Do nothing: OpenAI keeps the record of a batch for ever and has no call that deletes one."""

    async def files(self) -> AsyncGenerator[RemoteFile, None]:
        """Yield our input files; files that OpenAI wrote are named in the job."""
        async with aclosing(self._client.listed(self._files.list, OpenAIFile, purpose="batch")) as files:
            async for file in files:
                ours = as_file(file)
                if ours.intent is not None:
                    yield ours

    async def remove_file(self, name: str) -> None:
        """Delete a remote file; one that is gone is no error."""
        try:
            answer = await self._client.ask(self._files.delete(name), DeletedFile)
        except NotThereError:
            return
        if not answer.deleted:
            raise BadResponseError(self._name, f"file {name} was not deleted, and no reason given")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _create(self, intent: UUID, file: str, endpoint: Endpoint) -> RemoteJob:
        call = self._batches.create(
            input_file_id=file, endpoint=endpoint, completion_window="24h", metadata={INTENT: str(intent)}
        )
        try:
            return as_job(await self._client.ask(call, OpenAIBatch))
        except BadResponseError as problem:
            raise TransientError(self._name, f"nobody knows whether the job was made: {problem.detail}") from None
