"""The records of SQL tables as the documents of a dataset: what is described in `sources.sql`, read by `store.foreign`."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing

from evervec.domain.documents.document import ChangedIds, IncomingDocument, ListedDocument, SkippedDocument
from evervec.pipeline.indexing.plan import GONE
from evervec.sources.sql import records
from evervec.sources.sql.description import SourceDescription
from evervec.store.foreign.reader import ForeignTables, Record


class SqlSource:
    """The records of one tenant (or all of them), table by table in the order of the description."""

    def __init__(self, description: SourceDescription, foreign: ForeignTables, tenant: str | None) -> None:
        self._description, self._foreign, self._tenant = description, foreign, tenant

    @property
    def where(self) -> str:
        """Return the source's name, for messages."""
        return f"source {self._description.name!r}"

    @property
    def folders(self) -> list[str]:
        """Return no folder: what a snapshot of the tables does not have is gone."""
        return []

    def owns(self, uri: str) -> bool:
        """Return whether this is a record of one of the described tables."""
        return records.owns(self._description, uri)

    def exists(self, uri: str) -> bool:
        """Return True: a record does not move, and only a query of its table could tell that it is gone."""
        return True

    def named(self, changed: ChangedIds) -> list[str]:
        """Return the uris of ids by table. Raises `UnknownTableError`, or `SourceError` for an id of a wrong type."""
        key_types = {table: columns.key_type for table, columns in self._foreign.columns.items()}
        ids = records.check_ids(self._description, changed, key_types)
        return [records.uri_of(table, key) for table, keys in ids.items() for key in keys]

    async def listing(self, *, after: str | None = None) -> AsyncIterator[list[ListedDocument | SkippedDocument]]:
        """Yield every record with its document, by key. No snapshot of the source stays open while a batch is indexed."""
        tables = list(self._description.tables)
        table, reached = (None, None) if after is None else records.key_of(after)
        for name in tables[tables.index(table) if table in tables else 0 :]:
            key: int | str | None = reached if name == table else None
            while some := await self._page(name, key):
                yield [ListedDocument(one.uri, one.stamp, one) for one in self._documents(some)]
                key = some[-1].key

    async def _page(self, table: str, after: int | str | None) -> list[Record]:
        async with aclosing(self._foreign.extract_all(table, self._tenant, after)) as pages:
            return await anext(pages, [])

    async def read(self, listed: Sequence[ListedDocument]) -> AsyncIterator[list[IncomingDocument | SkippedDocument]]:
        """Look up the records of some uris by their keys; one that does not exist for this tenant is gone."""
        keys: dict[str, list[int | str]] = {}
        for one in listed:
            table, key = records.key_of(one.uri)
            keys.setdefault(table, []).append(key)
        left = {one.uri for one in listed}
        for table, wanted in keys.items():
            async for some in self._foreign.extract_data_by_ids(table, wanted, self._tenant):
                documents = list(self._documents(some))
                left.difference_update(one.uri for one in documents)
                yield list(documents)
        yield [SkippedDocument(one.uri, GONE, "there is no such record") for one in listed if one.uri in left]

    async def uris(self) -> AsyncIterator[list[str]]:
        """Yield the uris of all records, each table from one snapshot."""
        for table in self._description.tables:
            async with aclosing(self._foreign.keys(table, self._tenant)) as pages:
                async for keys in pages:
                    yield [records.uri_of(table, key) for key in keys]

    async def aclose(self) -> None:
        """Close the connections to the source."""
        await self._foreign.aclose()

    def _documents(self, some: Iterable[Record]) -> Iterable[IncomingDocument]:
        for one in some:
            yield records.document_of(self._description, one.table, one.key, one.updated_at, one.values)
