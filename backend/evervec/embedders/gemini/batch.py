"""Gemini's batch API: files, jobs and results; knows nothing of rows, and sends no request twice.

Plain REST on our own client: Google's library drops a job's `error` and `batchStats`, and reads a result file whole.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx

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
from evervec.embedders.gemini import lines as job_lines
from evervec.embedders.gemini import upload
from evervec.embedders.gemini.jobs import file_of, job_of, objects
from evervec.errors import (
    BadInputError,
    BadResponseError,
    ConfigError,
    ProviderError,
    ResultsDeletedError,
    TransientError,
)
from evervec.vendors.gemini.client import VERSION, GeminiClient, require_model
from evervec.vendors.gemini.refusals import GeminiRefusal
from evervec.vendors.http import Deadlines

GEMINI_QUEUED_TOKENS: Final = 500_000
"""Tokens that may wait in all jobs together in Google's tier 1, where every paying project begins; tier 2 has ten times
as many, and a job above it is refused whole. https://ai.google.dev/gemini-api/docs/rate-limits"""

GEMINI_BATCH_LIMITS: Final = BatchLimits(
    rows=50_000, bytes=1_900_000_000, tokens=GEMINI_QUEUED_TOKENS, jobs=100, queued_tokens=GEMINI_QUEUED_TOKENS
)
"""Google takes 2 GB a file and 100 jobs at a time; it names no number of rows, 50,000 are the most that we want to lose at once."""

PAGE: Final = 50
FILES_PAGE: Final = 100


class GeminiBatchClient:
    """The `BatchClient` of Gemini: `asyncBatchEmbedContent` for vectors, `batchGenerateContent` for descriptions.

    A job reads an uploaded file. Files and jobs belong to the project of the key, and are deleted after 48 hours.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        base_url: str | None = None,
        name: str = "gemini",
        dimensions: int | None = None,
        chat_model: str | None = None,
        document_prefix: str = "",
        task_types: bool = False,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._name, self._dimensions = name, dimensions
        self._prefix, self._task = document_prefix, job_lines.DOCUMENT_TASK if task_types else None
        self._model = require_model(name, model)
        self._chat_model = require_model(name, chat_model) if chat_model else None
        self._client = GeminiClient(base_url, provider=name, api_key=api_key, deadlines=deadlines)

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._name

    @property
    def limits(self) -> BatchLimits:
        """Return the limits of tier 1."""
        return GEMINI_BATCH_LIMITS

    def line(self, line: Line) -> bytes:
        """Return one line of an input file that asks for a vector. Raise `BadInputError` for a lone surrogate."""
        prefixed = Line(line.key, self._prefix + line.text)
        return job_lines.embedding_line(self._name, prefixed, self._dimensions, self._task)

    def media_line(self, line: MediaLine) -> bytes:
        """Return one line that asks for a description. Raise `BadInputError` or `ConfigError`."""
        self._require_chat_model()
        return job_lines.media_line(self._name, line)

    async def upload(self, intent: UUID, path: Path) -> str:
        """Upload an input file in pieces of 8 MB. A file of that name is kept if its bytes are the same, else replaced."""
        name = f"files/{remote_name(intent)}"
        if await upload.send(self._client, name, path):
            return name
        there = await self._client.ask("GET", f"/{VERSION}/{name}")
        if there.is_success and await upload.same(self._client.document(there), path):
            return name
        await self.remove_file(name)
        if not await upload.send(self._client, name, path):
            raise TransientError(self._name, f"{name} is there, though it was deleted")
        return name

    async def create_embedding_job(self, intent: UUID, file: str) -> RemoteJob:
        """Create a job that embeds the lines of a file; exactly one request: two would be two jobs and two bills."""
        return await self._create(intent, file, f"models/{self._model}:asyncBatchEmbedContent")

    async def describe_media(self, intent: UUID, file: str) -> RemoteJob:
        """Create a job that describes media; exactly one request."""
        return await self._create(intent, file, f"models/{self._require_chat_model()}:batchGenerateContent")

    async def get_job_status(self, external_id: str) -> RemoteJob:
        """Return the state of a job; `GONE` for one that is not there."""
        response = await self._client.ask("GET", f"/{VERSION}/{external_id}")
        if response.status_code == 404:
            return RemoteJob(external_id, RemoteState.GONE, "NOT_FOUND")
        if not response.is_success:
            raise self._client.error_of(self._client.refusal(response))
        return job_of(self._name, self._client.document(response))

    async def jobs(self, since: datetime) -> AsyncIterator[RemoteJob]:
        """Yield our jobs since then, newest first; no page after the first older job is requested."""
        async for operation in self._listed("batches", "operations", PAGE):
            job = job_of(self._name, operation)
            if job.created_at is not None and job.created_at < since:
                return
            if job.intent is not None:
                yield job

    async def download_results(self, job: RemoteJob, *, lines: int, dimensions: int | None) -> AsyncIterator[Results]:
        """Yield the results. Their file is at one of two addresses: that of Google's documents, or that of its library."""
        if job.state is RemoteState.SUCCEEDED and not job.result_files:
            raise ResultsDeletedError(self._name, f"{job.external_id} has succeeded and names no file of results")
        for file in job.result_files:
            pieces = self._client.pieces(f"/download/{VERSION}/{file}:download", f"/{VERSION}/{file}:download")
            async with aclosing(pieces):
                found = jsonl.lines(pieces, provider=self._name)
                read = jsonl.groups(found, job_lines.read, size=lines, dimensions=dimensions)
                async with aclosing(read):
                    async for results in read:
                        yield results

    async def cancel(self, external_id: str) -> None:
        """Ask Google to cancel a job; what it has done until then is lost."""
        response = await self._client.ask("POST", f"/{VERSION}/{external_id}:cancel")
        # for a job that is over, Google says that a precondition fails
        self._require_done(response, lambda refusal: refusal.status == 404 or refusal.word == "FAILED_PRECONDITION")

    async def remove_job(self, external_id: str) -> None:
        """Delete a job's record; a job that still runs goes on."""
        response = await self._client.ask("DELETE", f"/{VERSION}/{external_id}")
        self._require_done(response, lambda refusal: refusal.status == 404)

    async def files(self) -> AsyncIterator[RemoteFile]:
        """Yield our files. Result files have names given by Google, which deletes them."""
        async for found in self._listed("files", "files", FILES_PAGE):
            file = file_of(found)
            if file is not None and file.intent is not None:
                yield file

    async def remove_file(self, name: str) -> None:
        """Delete a file; one that is gone is answered with 403, and is no error."""
        response = await self._client.ask("DELETE", f"/{VERSION}/{name}")
        self._require_done(response, lambda refusal: refusal.missing)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _create(self, intent: UUID, file: str, path: str) -> RemoteJob:
        asked = {"batch": {"displayName": remote_name(intent), "inputConfig": {"file_name": file}}}
        try:
            response = await self._client.ask("POST", f"/{VERSION}/{path}", json=asked)
            if not response.is_success:
                raise self._not_made(self._client.refusal(response))
            return replace(job_of(self._name, self._client.document(response)), intent=intent)
        except BadResponseError as unread:
            raise TransientError(self._name, f"whether the job was made is not known: {unread.detail}") from None

    def _require_done(self, response: httpx.Response, allowed: Callable[[GeminiRefusal], bool]) -> None:
        """Raise unless Google did it (and says so in JSON, which a proxy's page is not) or had nothing to do."""
        if response.is_success:
            self._client.document(response)
        elif not allowed(refusal := self._client.refusal(response)):
            raise self._client.error_of(refusal)

    def _not_made(self, refusal: GeminiRefusal) -> ProviderError:
        if refusal.status == 403 and refusal.missing and "exist" in refusal.reason:
            return BadInputError(self._name, f"HTTP 403: {refusal.reason} A file is gone 48 hours after its upload.")
        return self._client.error_of(refusal)

    async def _listed(self, path: str, field: str, size: int) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the objects of a listing, page by page."""
        seen = {""}
        token = ""
        while True:
            where = {"pageSize": str(size)} | ({"pageToken": token} if token else {})
            page = await self._client.call("GET", path, params=where)
            for found in objects(page.get(field)):
                yield found
            token = str(page.get("nextPageToken") or "")
            if not token:
                return
            if token in seen:
                raise BadResponseError(self._name, f"the listing of {path} repeats a page")
            seen.add(token)

    def _require_chat_model(self) -> str:
        if self._chat_model is None:
            raise ConfigError(self._name, "it has no model that describes media. Give one with `--chat-model`.")
        return self._chat_model
