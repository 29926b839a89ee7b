"""`SemanticCore`: the library for scripts and notebooks. Importing it opens nothing and is quick."""

from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, cast, overload

from evervec.errors import UnknownDatasetError, UnknownProjectError
from evervec.library.core_documents import CoreDocuments
from evervec.library.open_core import OpenCore, following, opened
from evervec.library.opening import Opening, opens

if TYPE_CHECKING:
    # a second of imports, which `open` makes
    from evervec.domain.conditions.reading import Given
    from evervec.domain.encoders import EncoderOptions
    from evervec.library.spaces import Spaces
    from evervec.library.transaction import Transaction
    from evervec.pipeline.attached.attach import Attached
    from evervec.pipeline.attached.detach import Detached
    from evervec.pipeline.attached.objects import RowAnswer
    from evervec.pipeline.attached.report import AttachmentReport
    from evervec.pipeline.batch.manager import BatchManager
    from evervec.pipeline.resources import Resources
    from evervec.pipeline.search.answer import SearchAnswer
    from evervec.pipeline.status.overview import Overview
    from evervec.pipeline.upkeep.backfill import BackfillReport
    from evervec.store.database.session import Database
    from evervec.store.providers import Provider

DEFAULT_PROJECT, DEFAULT_DATASET = "library", "documents"


class SemanticCore(CoreDocuments):
    """A database, which is opened at the first use, by `start()`, or by `async with SemanticCore.open(url) as core`.

    Where an event loop runs, its methods are awaited. Where none runs they block and return their answers, and the database
    is open in a thread; `SyncSemanticCore` does that everywhere. `batch_manager` submits what waits as batch jobs and
    collects their results, `spaces` changes the model of datasets while they are searched.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        project: str = DEFAULT_PROJECT,
        dataset: str = DEFAULT_DATASET,
        home: str | PathLike[str] | None = None,
        migrate: bool = False,
        **settings: Any,
    ) -> None:
        """Name a database by its URL, or the embedded one; nothing is opened yet.

        Documents go to `project` and `dataset` unless a call names others. `home` is the folder of the embedded stack,
        `settings` are any others of `EVERVEC_*` (`batch_hours=24`). A server's database is migrated only with `migrate`.
        """
        self._project, self._dataset = project, dataset
        self._opening: Opening[OpenCore] = Opening(lambda: opened(url, home, migrate, settings))

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str | None = None, **how: Any) -> AsyncIterator[Self]:
        """Open a database as the class does; close it, and stop what was started, at the end of the block.

        Raises `DatabaseDownError`, `SchemaMismatchError`, and other classes of `evervec.errors`.
        """
        core = cls(url, **how)
        try:
            await core.start()
            yield core
        finally:
            await core.close()

    @classmethod
    def over(cls, resources: "Resources", *, project: str = DEFAULT_PROJECT, dataset: str = DEFAULT_DATASET) -> Self:
        """Return a core over resources that are open already, and stay open when it is closed."""
        core = cls(project=project, dataset=dataset)
        core._opening = Opening(lambda: following(resources))
        return core

    def start(self) -> Coroutine[Any, Any, None]:
        """Open the database now, also after `close`. May be called twice. Raises what `open` raises."""
        return cast("Coroutine[Any, Any, None]", self._opening.start())

    def close(self) -> Coroutine[Any, Any, None]:
        """Close the database, and stop what was started. May be called twice."""
        return cast("Coroutine[Any, Any, None]", self._opening.close())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def batch_manager(self) -> "BatchManager":
        """Return the batch jobs: `flush_queue`, `check_and_sync`, `process_queue`, `cancel`, `get`, `list`."""
        from evervec.library.blocking_batches import SyncBatchManager
        from evervec.pipeline.batch.manager import BatchManager

        return cast("BatchManager", SyncBatchManager(lambda: BatchManager(self._resources), self._opening.run))

    @property
    def spaces(self) -> "Spaces":
        """Return the spaces of datasets: `list`, `status`, `plan`, `build`, `activate`, `rollback`, `drop`."""
        from evervec.library.blocking_spaces import SyncSpaces
        from evervec.library.spaces import Spaces

        return cast("Spaces", SyncSpaces(lambda: Spaces(self._resources), self._opening.run))

    @property
    def database(self) -> "Database":
        """Return the open database, for SQL of your own."""
        return self._resources.database

    @asynccontextmanager
    async def transaction(self, connection: object = None) -> "AsyncIterator[Transaction]":
        """Write documents in one transaction with rows of your own: `async with core.transaction(session) as tx`.

        With a connection of asyncpg, or a session or connection of SQLAlchemy over asyncpg, it takes part in the transaction
        that is open there, and leaves commit, isolation level and settings to you. Without one it opens a transaction, whose
        `fetch` and `execute` are for SQL of your own, and commits it at the end of the block. Raises `Refused` for another
        driver, another database, or where no transaction is open.
        """
        from evervec.library.transaction import own_transaction, shared_transaction

        core = await self._opening.here()
        where = (self._project, self._dataset)
        if connection is None:
            transaction = own_transaction(core.resources, *where)
        else:
            transaction = shared_transaction(core.resources, connection, core.follower, *where)
        async with transaction as tx:
            yield tx

    @overload
    async def search(
        self,
        text: str,
        k: int = 10,
        *,
        of: Any = None,
        session: None = None,
        project: str | None = None,
        dataset: str | None = None,
        kind: str | None = None,
        where: "Given | None" = None,
        mode: str = "auto",
        engine: str = "auto",
        min_watermark: int | None = None,
        fresh: bool = False,
        least_similarity: float | None = None,
        by_document: bool = False,
        context: int = 0,
        snippets: bool = False,
    ) -> "SearchAnswer": ...

    @overload
    async def search(
        self,
        text: str,
        k: int = 10,
        *,
        of: Any,
        session: object,
        project: str | None = None,
        dataset: str | None = None,
        kind: str | None = None,
        where: "Given | None" = None,
        mode: str = "auto",
        engine: str = "auto",
        min_watermark: int | None = None,
        fresh: bool = False,
        least_similarity: float | None = None,
        by_document: bool = False,
        context: int = 0,
        snippets: bool = False,
    ) -> "RowAnswer": ...

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        of: Any = None,
        session: object = None,
        project: str | None = None,
        dataset: str | None = None,
        kind: str | None = None,
        where: "Given | None" = None,
        mode: str = "auto",
        engine: str = "auto",
        min_watermark: int | None = None,
        fresh: bool = False,
        least_similarity: float | None = None,
        by_document: bool = False,
        context: int = 0,
        snippets: bool = False,
    ) -> "Coroutine[Any, Any, SearchAnswer]":
        """Return the k rows nearest in meaning to a text, from everything unless a project, dataset or kind is named.

        `where` is a condition on their fields, as text (`author = "ada" AND sent_at > 2026-01-01`), as JSON or as a tree.
        `of` is a class whose table is attached, or a list of them: only their rows are searched. With a `session` of
        SQLAlchemy or SQLModel each hit has its object as `row`, loaded by one query a class; a hit whose row the session does
        not see (deleted meanwhile, or hidden by row-level security) is left out.

        `mode` is `vector`, `words`, `hybrid`, or `auto`, which decides by the question. `fresh` waits, for five seconds at most,
        until everything is embedded that was committed before; `min_watermark` is a transaction id of yours
        (`pg_current_xact_id()`), and waits for what that one committed. The answer's `pending_in_scope` says what is not
        embedded yet. Hits below `least_similarity`, a cosine, are left out; `by_document` leaves the best chunk of each
        document, `context` brings so many chunks before and after each, `snippets` the part of the text with the question's
        words.
        """
        how: dict[str, Any] = {
            "k": k,
            "project": project,
            "dataset": dataset,
            "kind": kind,
            "where": where,
            "mode": mode,
            "engine": engine,
            "min_watermark": min_watermark,
            "fresh": fresh,
        }
        wanted = (least_similarity, by_document, context, snippets)
        answer = self._opening.run(partial(self._search, text, of, session, how, wanted))
        return cast("Coroutine[Any, Any, SearchAnswer]", answer)

    @opens
    async def attach(
        self,
        table: object,
        /,
        *,
        text: object = None,
        columns: Sequence[object] = (),
        template: str | None = None,
        title: object = None,
        where: object = None,
        fields: Sequence[object] = (),
        dataset: str | None = None,
        dataset_column: object = None,
        dataset_name: str = "{value}",
        project: str | None = None,
        newest_first: bool = False,
        rows_per_second: float | None = None,
        replace: bool = False,
        dry_run: bool = False,
        url: str | None = None,
        **more: Any,
    ) -> "Attached":
        """Embed a table in place, as `evervec attach` does: a mapped class, or the name of a table.

        `text`, `title` and `where` are expressions of SQLAlchemy over the class's columns (`Article.title + Article.body`)
        or SQL; a `template` is filled in with columns (`{title}: {body}`); `columns`, `fields` and `dataset_column` are its
        attributes or names. `dataset` may name the project, too (`app/articles`). The call returns when the triggers are
        there; workers take existing rows in. Attaching in the same way again changes nothing, so a program may do it whenever
        it starts. `url` is the address of another database that has the table, `more` are other options of `evervec attach`
        by their names (`outbox="shop_outbox"`).

        Raises `SourceError` for a table or an expression that can not be used, `Refused` for a dataset that holds something
        else or an attachment of another description, `TableBusyError` if the table stays locked for 30 s.
        """
        from evervec.library.attaching import described
        from evervec.pipeline.attached.attach import AttachOptions, attach

        description = described(
            table,
            project=project or self._project,
            dataset=dataset,
            dataset_name=dataset_name,
            expressions={"text": text, "title": title, "where": where},
            columns=columns,
            template=template,
            fields=fields,
            dataset_column=dataset_column,
            url=url,
            more=more,
        )
        options = AttachOptions(newest_first, rows_per_second, replace)
        return await attach(self._resources, description, options, dry=dry_run)

    @opens
    async def detach(self, table: object, *, project: str | None = None, dry_run: bool = False) -> "Detached":
        """Leave no trigger, function, document or vector of an attached class or table behind; its rows are not touched."""
        from evervec.pipeline.attached.detach import detach
        from evervec.store.callers.classes import table_name

        return await detach(self._resources, table_name(table), project=project, dry=dry_run)

    @opens
    async def attachments(self, project: str | None = None) -> "list[AttachmentReport]":
        """Return all attached tables, or those of a project: how far each is, what waits, what failed, what it costs."""
        from evervec.pipeline.attached.report import attachments

        return await attachments(self._resources, project)

    @opens
    async def backfill(self, *, dataset: str | None = None) -> "BackfillReport":
        """Embed online, in this process, everything that waits and is not marked for a batch job."""
        from evervec.pipeline.upkeep.backfill import run

        return await run(self._resources, dataset=dataset)

    @opens
    async def status(self) -> "Overview":
        """Return coverage by dataset, as `evervec status --json` shows it."""
        from evervec.pipeline.status.overview import status

        return await status(self._resources)

    @opens
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
        encoder: "EncoderOptions | None" = None,
        extracts: bool = True,
        no_key: bool = False,
        use: bool = False,
    ) -> "Provider":
        """Probe a provider of one of the types of `domain/vendors.py` and store it; on an empty database it becomes active.

        `use` makes it active in any case: where rows are embedded in another space, its own is built beside that one, and
        searched as soon as every row has its vector. `price` is in
        dollars per million tokens, online. `encoder` names the folder of a model of your own and how it is run.
        Without `extracts` the chat model describes media alone. `no_key`: the OpenAI-compatible server at `base_url` asks for
        none.
        """
        from evervec.domain.encoders import EncoderOptions
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
            encoder=encoder or EncoderOptions(),
            extracts=extracts,
            no_key=no_key,
        )
        added = await providers.add(self._resources, draft)
        return await providers.use(self._resources, added.name, reembed=True) if use else added

    async def _search(
        self, text: str, of: Any, session: object, how: dict[str, Any], wanted: tuple[float | None, bool, int, bool]
    ) -> "SearchAnswer":
        from evervec.pipeline.attached.objects import search_rows
        from evervec.pipeline.search.details import Details
        from evervec.pipeline.search.search import search

        how["details"] = Details(*wanted)
        if of is not None or session is not None:
            return await search_rows(self._resources, text, of, session, **how)
        try:
            return await search(self._resources, text, **how)
        except (UnknownDatasetError, UnknownProjectError):
            named = (how["project"] or self._project, how["dataset"] or self._dataset)
            if named not in ((self._project, self._dataset), (self._project, f"{self._project}/{self._dataset}")):
                raise
            # the dataset of this core begins with its first write, and is empty until then
            return await search(self._resources, text, **{**how, "project": None, "dataset": None, "dataset_ids": ()})
