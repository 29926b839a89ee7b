"""`SemanticCore`: the engine for scripts and notebooks. Importing it opens nothing and takes no time worth a word."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

from evervec.domain.document import IncomingDocument
from evervec.errors import Refused

if TYPE_CHECKING:
    # a second of imports, which come with `open`
    from evervec.pipeline.batch.manager import BatchManager
    from evervec.pipeline.ingest.documents import IngestResult
    from evervec.pipeline.search.search import SearchAnswer
    from evervec.pipeline.upkeep.backfill import BackfillReport
    from evervec.runtime import Runtime
    from evervec.store.providers import Provider
    from evervec.store.session import Database

DEFAULT_PROJECT, DEFAULT_DATASET = "library", "documents"

Documents = IncomingDocument | Iterable[IncomingDocument] | AsyncIterable[IncomingDocument]


class SemanticCore:
    """One open database. `async with SemanticCore.open(url) as core`.

    `database` is for SQL of your own, `batch_manager` sends what waits as batch jobs and collects them.
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
        """Open a database by its URL, or the embedded one; closed, and stopped if it was started, at the end of the block.

        What is ingested goes to `project` and `dataset` if nothing else is said. `home` is the folder of the embedded
        stack, `settings` are any others of `EVERVEC_*` (`batch_hours=24`). A server's database is migrated only with
        `migrate`. Raises `DatabaseDownError`, `SchemaMismatchError`, and others of `evervec.errors` that say what to do.
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
        """The batch lane: `flush_queue`, `check_and_sync`, `process_queue`, `cancel`, `list`."""
        return self._batch_manager

    @property
    def database(self) -> "Database":
        """The open database, for SQL of your own."""
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

        `sync` embeds before it returns, `async` never touches the network, `auto` is `sync` for little text and a local
        model. A document that is there already under its uri is replaced, and only what changed is embedded.
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
        """The k rows nearest in meaning to a text, over everything unless a project, dataset or kind is named."""
        from evervec.pipeline.search.search import search

        return await search(self._resources, text, k=k, project=project, dataset=dataset, kind=kind, engine=engine)

    async def backfill(self, *, dataset: str | None = None) -> "BackfillReport":
        """Embed online, here and now, everything that waits and is not kept for a batch job."""
        from evervec.pipeline.upkeep.backfill import run

        return await run(self._resources, dataset=dataset)

    async def status(self) -> dict[str, Any]:
        """Coverage by dataset, as `evervec status --json` has it."""
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
        """Probe a provider (`local`, `ollama`, `gemini`, `openai`) and keep it; it is used at once on an empty database.

        `use` makes it the active one in any case: vectors of another space go, and their rows wait again. `price` is in
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
