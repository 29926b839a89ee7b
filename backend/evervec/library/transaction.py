"""Evervec's writes in one transaction with those of the caller: on a connection of his, or on one of our own."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from evervec.errors import DatabaseRefusedError, SchemaMismatchError
from evervec.library.given_documents import Documents, each
from evervec.queue.doorbell import SilentDoorbell

if TYPE_CHECKING:
    from evervec.pipeline.ingest.committed import CommitFollower
    from evervec.pipeline.ingest.documents import IngestResult
    from evervec.pipeline.resources import Resources


class Transaction:
    """What `SemanticCore.transaction` opens. What it writes exists when the transaction commits, and never if it rolls back."""

    def __init__(self, resources: "Resources", connection: Any, project: str, dataset: str) -> None:
        self._resources, self._connection = resources, connection
        self._project, self._dataset = project, dataset
        self.written: set[UUID] = set()
        """The datasets that it wrote documents into."""
        self.id: int | None = None
        """The transaction's id in PostgreSQL, once something was written."""

    async def ingest(
        self, documents: Documents, *, project: str | None = None, dataset: str | None = None
    ) -> "IngestResult":
        """Chunk and write documents, as `SemanticCore.ingest` does in mode `async`: they are embedded after the commit.

        Raises what it raises, and `MissingRightsError` where the role of the connection may not write to Evervec's tables.
        What fails is undone alone: the transaction goes on.
        """
        from evervec.pipeline.ingest.documents import Mode, ingest_documents

        where = {"project": project or self._project, "dataset": dataset or self._dataset}
        async with self._rights():
            done = await ingest_documents(self._resources, each(documents), **where, mode=Mode.ASYNC)
            await self._remember(**where)
        return done

    async def delete(self, uris: str | Sequence[str], *, project: str | None = None, dataset: str | None = None) -> int:
        """Delete documents by their uris, as `SemanticCore.delete` does; return how many there were."""
        from evervec.pipeline.ingest import stored_documents

        given = [uris] if isinstance(uris, str) else uris
        async with self._rights():
            return await stored_documents.delete(
                self._resources, given, project=project or self._project, dataset=dataset or self._dataset
            )

    async def update_metadata(
        self,
        uri: str,
        change: Mapping[str, Any],
        *,
        replace: bool = False,
        project: str | None = None,
        dataset: str | None = None,
    ) -> dict[str, Any]:
        """Change the metadata of a document, as `SemanticCore.update_metadata` does; return all of it."""
        from evervec.pipeline.ingest import stored_documents

        where = {"project": project or self._project, "dataset": dataset or self._dataset}
        async with self._rights():
            return await stored_documents.change_metadata(self._resources, uri, change, replace=replace, **where)

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        """Run SQL of your own in this transaction and return its rows; names mean what they mean on your connection."""
        rows: list[Any] = await self._connection.fetch(sql, *values)
        return rows

    async def execute(self, sql: str, *values: object) -> str:
        """Run a statement of your own in this transaction and return its command tag."""
        tag: str = await self._connection.execute(sql, *values)
        return tag

    async def _remember(self, project: str, dataset: str) -> None:
        from evervec.store import datasets
        from evervec.store.callers import savepoints

        async with self._resources.database.transaction() as tx:
            self.written.add((await datasets.ensure(tx, project, dataset)).id)
            self.id = await savepoints.transaction_id(tx)

    @asynccontextmanager
    async def _rights(self) -> AsyncIterator[None]:
        """Name the rights that a role lacks, after PostgreSQL has refused something."""
        from evervec.store.callers import savepoints

        try:
            yield
        except (DatabaseRefusedError, SchemaMismatchError):
            await savepoints.require_rights(self._resources.database, self._connection)
            raise


@asynccontextmanager
async def own_transaction(resources: "Resources", project: str, dataset: str) -> AsyncIterator[Transaction]:
    """Open a transaction on a connection of our own; commit it at the end, and ring for what it wrote."""
    from evervec.pipeline.ingest import committed
    from evervec.store.callers import savepoints

    async with resources.database.transaction() as tx:
        await savepoints.by_usual_names(tx)
        opened = _on(tx.connection, resources, project, dataset)
        yield opened
    await committed.ring(resources, opened.written)


@asynccontextmanager
async def shared_transaction(
    resources: "Resources", given: object, follower: "CommitFollower", project: str, dataset: str
) -> AsyncIterator[Transaction]:
    """Take part in the transaction of a connection or session; ring for what was written when its owner has committed."""
    from evervec.store.callers import connections, savepoints

    connection = await connections.open_connection(given)
    await savepoints.require_same_database(resources.database, connection)
    opened = _on(connection, resources, project, dataset)
    yield opened
    if opened.id is not None:
        follower.follow(opened.id, opened.written)


def _on(connection: Any, resources: "Resources", project: str, dataset: str) -> Transaction:
    from evervec.store.callers import savepoints

    database = resources.database.borrowing(savepoints.lender(connection))
    # nothing is committed yet: nobody is woken before the end of the transaction
    quiet = replace(resources, database=database, doorbell=SilentDoorbell())
    return Transaction(quiet, connection, project, dataset)
