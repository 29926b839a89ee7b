"""The documents of a core: handed over, got, listed, described anew, deleted; in the caller's transaction where he gives one."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from evervec.errors import Refused, UnknownDatasetError
from evervec.library.given_documents import Documents, each
from evervec.library.opening import Opening, opens

if TYPE_CHECKING:
    from evervec.library.transaction import Transaction
    from evervec.pipeline.ingest.documents import IngestResult
    from evervec.pipeline.resources import Resources
    from evervec.store.document_records import DocumentEntry, DocumentRecord

    Entries = list[DocumentEntry]
    Records = list[DocumentRecord]


class CoreDocuments:
    """What `SemanticCore` does with documents.

    A `connection` of asyncpg, or a `session` or connection of SQLAlchemy over asyncpg, makes a write part of the transaction
    that is open there, as `transaction` does.
    """

    _opening: Opening[Any]
    _project: str
    _dataset: str

    @property
    def _resources(self) -> "Resources":
        resources: Resources = self._opening.opened.resources
        return resources

    def _taking_part(self, given: object) -> "AbstractAsyncContextManager[Transaction]":
        from evervec.library.transaction import shared_transaction

        return shared_transaction(self._resources, given, self._opening.opened.follower, self._project, self._dataset)

    @opens
    async def ingest(
        self,
        documents: Documents,
        mode: str = "auto",
        *,
        project: str | None = None,
        dataset: str | None = None,
        connection: object = None,
        session: object = None,
    ) -> "IngestResult":
        """Chunk and write documents, one or many; many at once are written in larger transactions.

        `sync` embeds before it returns, `async` never uses the network, `auto` is `sync` for little text and a local
        model. A document replaces the one with the same uri, and only what changed is embedded. In a transaction of yours
        nothing is embedded before you have committed.
        """
        from evervec.pipeline.ingest.documents import Mode, ingest_documents

        where = self._where(project, dataset)
        given = _given(connection, session)
        if given is None:
            return await ingest_documents(self._resources, each(documents), mode=mode, **where)
        if mode.lower() == Mode.SYNC:
            raise Refused(reason="Nothing is embedded before you have committed: use mode 'async' in a transaction.")
        async with self._taking_part(given) as tx:
            return await tx.ingest(documents, **where)

    @opens
    async def delete(
        self,
        uris: "str | Sequence[str]",
        *,
        project: str | None = None,
        dataset: str | None = None,
        connection: object = None,
        session: object = None,
    ) -> int:
        """Delete documents by their uris, with chunks and vectors; return how many there were.

        Raises `UnknownDatasetError`, and `Refused` for a dataset that is filled from a source.
        """
        from evervec.pipeline.ingest import stored_documents

        where = self._where(project, dataset)
        given = _given(connection, session)
        if given is None:
            return await stored_documents.delete(self._resources, [uris] if isinstance(uris, str) else uris, **where)
        async with self._taking_part(given) as tx:
            return await tx.delete(uris, **where)

    @opens
    async def update_metadata(
        self,
        uri: str,
        change: Mapping[str, Any],
        *,
        replace: bool = False,
        project: str | None = None,
        dataset: str | None = None,
        connection: object = None,
        session: object = None,
    ) -> dict[str, Any]:
        """Change the metadata of a document, and return all of it; nothing is embedded again.

        A name whose value is None is removed, names that are not in `change` stay unless it is to `replace` all. Raises
        `UnknownDatasetError`, `UnknownDocumentError`, and `Refused` for values that JSON does not have.
        """
        from evervec.pipeline.ingest import stored_documents

        where = self._where(project, dataset)
        given = _given(connection, session)
        if given is None:
            return await stored_documents.change_metadata(self._resources, uri, change, replace=replace, **where)
        async with self._taking_part(given) as tx:
            return await tx.update_metadata(uri, change, replace=replace, **where)

    @opens
    async def get(self, uri: str, *, project: str | None = None, dataset: str | None = None) -> "DocumentRecord | None":
        """Return a document by its uri, with its text and metadata, or None. Raises `UnknownDatasetError`."""
        return next(iter(await self._stored([uri], project, dataset)), None)

    @opens
    async def get_many(
        self, uris: Sequence[str], *, project: str | None = None, dataset: str | None = None
    ) -> "Records":
        """Return those of some documents that are there, by uri, with texts and metadata. Raises `UnknownDatasetError`."""
        return await self._stored(uris, project, dataset)

    async def _stored(self, uris: Sequence[str], project: str | None, dataset: str | None) -> "Records":
        from evervec.pipeline.ingest import stored_documents

        try:
            return await stored_documents.get(self._resources, uris, **self._where(project, dataset))
        except UnknownDatasetError:
            if not self._is_own(project, dataset):
                raise
            return []

    @opens
    async def list(
        self,
        prefix: str = "",
        *,
        after: str = "",
        limit: int = 100,
        metadata: Mapping[str, Any] | None = None,
        project: str | None = None,
        dataset: str | None = None,
    ) -> "Entries":
        """Return documents without their texts, by uri: those that begin with `prefix`, behind the uri `after`.

        With `metadata` only those that have these values. The `uri` of the last one is `after` for the next page. Raises
        `UnknownDatasetError`, and `Refused` for a bad limit.
        """
        from evervec.pipeline.ingest import stored_documents

        try:
            where = self._where(project, dataset)
            return await stored_documents.page(
                self._resources, prefix=prefix, after=after, limit=limit, said=metadata, **where
            )
        except UnknownDatasetError:
            if not self._is_own(project, dataset):
                raise
            return []

    def _where(self, project: str | None, dataset: str | None) -> dict[str, str]:
        return {"project": project or self._project, "dataset": dataset or self._dataset}

    def _is_own(self, project: str | None, dataset: str | None) -> bool:
        """Return whether it is the dataset of this core, which begins with its first write and is empty until then."""
        return self._where(project, dataset) == self._where(None, None)


def _given(connection: object, session: object) -> object:
    if connection is not None and session is not None:
        raise Refused(reason="Both `connection` and `session` are given. Give the one whose transaction is open.")
    return session if connection is None else connection
