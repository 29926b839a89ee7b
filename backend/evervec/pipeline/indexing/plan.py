"""The plan for a batch of listed documents: what is unchanged, has moved, is gone, or has to be chunked."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from uuid import UUID

from evervec.domain.documents.chunking import CHUNKING
from evervec.domain.documents.document import IncomingDocument, ListedDocument, SkippedDocument, SourceReader
from evervec.store import documents
from evervec.store.database.session import Database
from evervec.store.documents import StoredDocument
from evervec.store.runs import RunCounts

GONE = "gone"

LONGEST_URI = 2000
"""Characters: an index of PostgreSQL takes 2,704 bytes."""


@dataclass
class ChangePlan:
    """The changes of a batch: newer stamps and moved documents by id, documents to chunk and to remove.

    `counts` and `skipped` tell about the rest of the batch, `cursor` is its last uri.
    """

    cursor: str | None
    touched: dict[int, str | None] = field(default_factory=dict)
    moved: dict[int, IncomingDocument] = field(default_factory=dict)
    changed: list[IncomingDocument] = field(default_factory=list)
    gone: list[StoredDocument] = field(default_factory=list)
    counts: RunCounts = field(default_factory=RunCounts)
    skipped: list[SkippedDocument] = field(default_factory=list)

    def writes(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.touched or self.moved or self.changed or self.gone)

    def count_unchanged(self, known: StoredDocument) -> None:
        """Count a document that did not change."""
        self.counts += RunCounts(documents_unchanged=1, chunks_skipped=known.chunk_count)


class Planner:
    """Compares the documents of a source with those of a dataset."""

    def __init__(
        self,
        database: Database,
        dataset_id: UUID,
        source: SourceReader,
        clock: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._database, self._dataset_id, self._source = database, dataset_id, source
        self._clock = clock

    async def plan(self, batch: Sequence[ListedDocument | SkippedDocument]) -> ChangePlan:
        """Read the documents of a batch where their stamps differ, and plan what to write."""
        plan = ChangePlan(batch[-1].uri)
        listed = [one for one in batch if isinstance(one, ListedDocument) and len(one.uri) <= LONGEST_URI]
        plan.skipped += [one for one in batch if isinstance(one, SkippedDocument)]
        plan.skipped += [SkippedDocument(one.uri, "name too long") for one in batch if len(one.uri) > LONGEST_URI]
        async with self._database.read() as tx:
            known = await documents.by_uri(tx, self._dataset_id, [one.uri for one in listed])
        due = [one for one in listed if not self._unchanged(plan, known.get(one.uri), one)]
        missing: list[SkippedDocument] = []
        for one in await self._read(due):
            before = known.get(one.uri)
            if isinstance(one, SkippedDocument):
                (missing if one.reason == GONE else plan.skipped).append(one)
            elif before is not None and before.says(one, CHUNKING):
                plan.count_unchanged(before)
                if before.stamp != one.stamp:
                    plan.touched[before.id] = one.stamp
            else:
                plan.changed.append(one)
        await self._find_gone(plan, missing, known)
        await self._find_moved(plan, known)
        return plan

    def _unchanged(self, plan: ChangePlan, known: StoredDocument | None, listed: ListedDocument) -> bool:
        """Return whether a stamp alone shows that nothing changed; listed documents are compared by their text instead."""
        if known is None or listed.document is not None or listed.stamp is None:
            return False
        same = (known.stamp, known.recipe) == (listed.stamp, CHUNKING)
        if same:
            plan.count_unchanged(known)
        return same

    async def _read(self, due: Sequence[ListedDocument]) -> list[IncomingDocument | SkippedDocument]:
        found: list[IncomingDocument | SkippedDocument] = [one.document for one in due if one.document is not None]
        unread = [one for one in due if one.document is None]
        if unread:
            with self._clock("read"):
                async for some in self._source.read(unread):
                    found += some
        return found

    async def _find_gone(
        self, plan: ChangePlan, missing: Sequence[SkippedDocument], known: Mapping[str, StoredDocument]
    ) -> None:
        """Plan to remove the documents of uris where nothing is any more, and those in a folder that is gone.

        A uri that never was a document or folder here is an id that does not exist, and is skipped.
        """
        plan.gone += [known[one.uri] for one in missing if one.uri in known]
        unknown = [one for one in missing if one.uri not in known]
        if not unknown:
            return
        async with self._database.read() as tx:
            below = await documents.in_folders(tx, self._dataset_id, [one.uri for one in unknown])
        plan.gone += [one for one in below if not self._source.exists(one.uri)]
        folders = {one.uri for one in unknown if any(found.uri.startswith(f"{one.uri}/") for found in below)}
        plan.skipped += [one for one in unknown if one.uri not in folders]

    async def _find_moved(self, plan: ChangePlan, known: Mapping[str, StoredDocument]) -> None:
        """Plan a move for a new document whose text is stored under a uri where nothing is any more: its vectors stay."""
        new = {documents.digest(one.text): one for one in plan.changed if one.text and one.uri not in known}
        if not new:
            return
        async with self._database.read() as tx:
            candidates = await documents.by_digest(tx, self._dataset_id, new)
        for candidate in candidates:
            document = new.get(candidate.content_hash or b"")
            if (
                document is not None
                and candidate.says(document, CHUNKING)
                and self._source.owns(candidate.uri)
                and not self._source.exists(candidate.uri)
            ):
                plan.moved[candidate.id] = new.pop(documents.digest(document.text))
                plan.counts += RunCounts(chunks_skipped=candidate.chunk_count)
                plan.changed.remove(document)
