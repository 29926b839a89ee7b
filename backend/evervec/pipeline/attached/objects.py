"""Search that returns the caller's objects: the rows of attached tables that were found, as a session of his has them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evervec.domain.attachment import AttachedTable, Key
from evervec.errors import Refused
from evervec.pipeline.attached.detach import find
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import search as searching
from evervec.pipeline.search.answer import SearchAnswer
from evervec.sources.attached.description import Attachment
from evervec.store import sources
from evervec.store.callers import classes, objects
from evervec.store.embeddings.hits import SearchHit


@dataclass(frozen=True)
class RowHit(SearchHit):
    """A hit with the object of its row."""

    row: Any = None


@dataclass(frozen=True)
class RowAnswer(SearchAnswer):
    """The hits of a search with their objects, best first; also a sequence of them."""

    hits: Sequence[RowHit]

    def __iter__(self) -> Iterator[RowHit]:
        return iter(self.hits)

    def __getitem__(self, place: int) -> RowHit:
        return self.hits[place]


async def search_rows(
    resources: Resources, text: str, of: Any, session: Any, *, project: str | None = None, **how: Any
) -> SearchAnswer:
    """Search the rows of an attached class, or of several; with a session, return them as its objects (`RowAnswer`).

    Objects are loaded by one query a class. A hit whose row the session does not see (deleted meanwhile, or hidden by
    row-level security) is left out. Raises `Refused` for a class that is not attached.
    """
    given = list(of) if isinstance(of, list | tuple) else [of]
    if not given or None in given:
        raise Refused(reason="A session loads objects of classes: say which, for example of=Article.")
    records = [await find(resources, classes.table_name(one), project) for one in given]
    async with resources.database.read() as tx:
        filled = [one.id for record in records for one in (await sources.filled(tx, record.id)).values()]
    answer = await searching.search(resources, text, project=project, dataset_ids=filled, **how)
    if session is None:
        return answer
    rows = {}
    for record, one in zip(records, given, strict=True):
        table = Attachment.load(record.spec).table
        rows[table.label] = await objects.by_key(session, one, table, _keys(answer, table))
    hits = [
        RowHit(**vars(hit), row=rows[hit.table][_key(hit)])
        for hit in answer
        if hit.table in rows and _key(hit) in rows[hit.table]
    ]
    return RowAnswer(**vars(answer) | {"hits": hits})


def _keys(answer: SearchAnswer, table: AttachedTable) -> list[Key]:
    return list(dict.fromkeys(_key(hit) for hit in answer if hit.table == table.label))


def _key(hit: SearchHit) -> Key:
    return tuple(hit.key or ())
