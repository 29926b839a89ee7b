"""`SemanticCore`: the library for scripts and notebooks. Importing it opens nothing and is quick."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

from evervec.domain.documents.document import IncomingDocument
from evervec.errors import Refused

if TYPE_CHECKING:
    # a second of imports, which `open` makes
    from evervec.pipeline.batch.manager import BatchManager
    from evervec.pipeline.ingest.documents import IngestResult
    from evervec.pipeline.search.search import SearchAnswer
    from evervec.pipeline.status.overview import Overview
    from evervec.pipeline.upkeep.backfill import BackfillReport
    from evervec.runtime import Runtime
    from evervec.store.providers import Provider
    from evervec.store.session import Database

DEFAULT_PROJECT, DEFAULT_DATASET = "library", "documents"

Documents = IncomingDocument | Iterable[IncomingDocument] | AsyncIterable[IncomingDocument]


class SemanticCore:
    """An open database: `async with SemanticCore.open(url) as core`.

    `database` is for SQL of your own, `batch_manager` submits what waits as batch jobs and collects their results.
    """

    def __init__(self, runtime: "Runtime", project: str, dataset: str) -> None:
        from evervec.pipeline.batch.manager import BatchManager

        self._runtime, self._resources = runtime, runtime.resources
        self._project, self._dataset = project, dataset
        self._batch_manager = BatchManager(runtime.resources)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str | None = None,
        *,
        project: str = DEFAULT_PROJECT,
        dataset: str = DEFAULT_DATASET,
        home: str | PathLike[str] | None = None,
        migrate: bool = False,
        **settings: Any,
    ) -> "AsyncIterator[SemanticCore]":
        """Open a database by its URL, or the embedded one; close it, and stop what was started, at the end of the block.

        Documents go to `project` and `dataset` unless a call names others. `home` is the folder of the embedded stack,
        `settings` are any others of `EVERVEC_*` (`batch_hours=24`). A server's database is migrated only with `migrate`.
        Raises `DatabaseDownError`, `SchemaMismatchError`, and other classes of `evervec.errors`.
        """
        from evervec import log
        from evervec.runtime import open_runtime
        from evervec.settings import Settings

        given: dict[str, Any] = dict(settings)
        if url == "":
            raise Refused(reason="The address of the database is empty. Leave it out for the embedded one.")
        if url is not None:
            given["database_url"] = url
        if home is not None:
            given["home"] = home
        found = Settings(**given)
        log.configure_quietly(found.log_level, as_json=found.log_json)
        async with open_runtime(found, queue=False, migrate=True if migrate else None) as runtime:
            yield cls(runtime, project, dataset)

    @property
    def batch_manager(self) -> "BatchManager":
        """Return the batch jobs: `flush_queue`, `check_and_sync`, `process_queue`, `cancel`, `get`, `list`."""
        return self._batch_manager

    @property
    def database(self) -> "Database":
        """Return the open database, for SQL of your own."""
        return self._resources.database

    async def ingest(
        self,
        documents: Documents,
        mode: str = "auto",
        *,
        project: str | None = None,
        dataset: str | None = None,
    ) -> "IngestResult":
        """Chunk and write documents, one or many; many at once are written in larger transactions.

        `sync` embeds before it returns, `async` never uses the network, `auto` is `sync` for little text and a local
        model. A document replaces the one with the same uri, and only what changed is embedded.
        """
        from evervec.pipeline.ingest.documents import ingest_documents

        return await ingest_documents(
            self._resources,
            _each(documents),
            project=project or self._project,
            dataset=dataset or self._dataset,
            mode=mode,
        )

    async def search(
        self,
        text: str,
        k: int = 10,
        *,
        project: str | None = None,
        dataset: str | None = None,
        kind: str | None = None,
        engine: str = "auto",
    ) -> "SearchAnswer":
        """Return the k rows nearest in meaning to a text, from everything unless a project, dataset or kind is named."""
        from evervec.pipeline.search.search import search

        return await search(self._resources, text, k=k, project=project, dataset=dataset, kind=kind, engine=engine)

    async def backfill(self, *, dataset: str | None = None) -> "BackfillReport":
        """Embed online, in this process, everything that waits and is not marked for a batch job."""
        from evervec.pipeline.upkeep.backfill import run

        return await run(self._resources, dataset=dataset)

    async def status(self) -> "Overview":
        """Return coverage by dataset, as `evervec status --json` shows it."""
        from evervec.pipeline.status.overview import status

        return await status(self._resources)

    async def add_provider(
        self,
        name: str,
        type: str,  # noqa: A002  # the word of the provider's record
        *,
        model: str | None = None,
        chat_model: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        dimensions: int | None = None,
        price: float | None = None,
        use: bool = False,
    ) -> "Provider":
        """Probe a provider (`local`, `ollama`, `gemini`, `openai`) and store it; on an empty database it becomes active.

        `use` makes it active in any case: vectors of another space are deleted, and their rows wait again. `price` is in
        dollars per million tokens, online.
        """
        from evervec.pipeline.embedding import providers
        from evervec.store.providers import ProviderDraft

        draft = ProviderDraft(
            name,
            type,
            model=model,
            chat_model=chat_model,
            api_key=api_key,
            base_url=base_url,
            dimensions=dimensions,
            usd_per_million_tokens=price,
        )
        added = await providers.add(self._resources, draft)
        return await providers.use(self._resources, added.name, reembed=True) if use else added


async def _each(documents: Documents) -> AsyncIterator[IncomingDocument]:
    if isinstance(documents, AsyncIterable):
        async for one in documents:
            yield _document(one)
    elif isinstance(documents, Iterable) and not isinstance(documents, str):
        for one in documents:
            yield _document(one)
    else:
        yield _document(documents)


def _document(given: object) -> IncomingDocument:
    if not isinstance(given, IncomingDocument):
        how = "Document.from_path(path) or Document.from_text(uri, text), or several"
        raise Refused(reason=f"{given!r:.100} is no document. Give {how}.")
    return given
