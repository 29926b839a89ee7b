"""What is asked for beside the hits themselves: one hit a document, the least similarity, the chunks around, snippets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from evervec.errors import Refused
from evervec.pipeline.search.words import AskedWords
from evervec.store.database.session import Database
from evervec.store.embeddings import surroundings
from evervec.store.embeddings.hits import SearchHit
from evervec.store.schema.embeddables import BY_NAME, CHUNK

MOST_CONTEXT = 20


@dataclass(frozen=True)
class Details:
    """What a caller wants of the hits.

    `least_similarity` is a cosine: rows below it are no hits. With `by_document` only the best chunk of each document is one.
    `context` is how many chunks before and after a chunk come with it, `snippets` whether each hit has the part of its text with
    the question's words, `explain` whether the answer says how it came about.
    """

    least_similarity: float | None = None
    by_document: bool = False
    context: int = 0
    snippets: bool = False
    explain: bool = False

    def check(self) -> None:
        """Raise `Refused` for what can not be."""
        if self.least_similarity is not None and not -1 <= self.least_similarity <= 1:
            raise Refused(reason=f"The least similarity is {self.least_similarity}, it must be between -1 and 1.")
        if not 0 <= self.context <= MOST_CONTEXT:
            raise Refused(reason=f"The context is {self.context} chunks, it must be between 0 and {MOST_CONTEXT}.")

    def kept(self, hits: Iterable[SearchHit]) -> list[SearchHit]:
        """Return the hits that are similar enough, and with `by_document` the first of each document."""
        least = self.least_similarity
        similar = [hit for hit in hits if least is None or (hit.similarity is not None and hit.similarity >= least)]
        if not self.by_document:
            return similar
        seen: dict[tuple[str, str, str | int], SearchHit] = {}
        for hit in similar:
            seen.setdefault((hit.dataset, hit.kind, hit.place.document if hit.place else hit.id), hit)
        return list(seen.values())


async def add(
    database: Database, details: Details, hits: Sequence[SearchHit], asked: Sequence[AskedWords]
) -> list[SearchHit]:
    """Return hits with what was asked for beside them."""
    found = list(hits)
    if details.context:
        chunks = [hit.id for hit in found if hit.kind == CHUNK.name]
        async with database.read() as tx:
            around = await surroundings.around(tx, chunks, details.context)
        found = [replace(hit, around=around.get(hit.id)) if hit.kind == CHUNK.name else hit for hit in found]
    return await _with_snippets(database, found, asked) if details.snippets else found


async def _with_snippets(database: Database, hits: Sequence[SearchHit], asked: Sequence[AskedWords]) -> list[SearchHit]:
    snippets: dict[tuple[str, int], str] = {}
    async with database.read() as tx:
        for part, words in (pair for one in asked for pair in one.parts):
            names = {dataset.slug for dataset in part.datasets}
            for kind in {hit.kind for hit in hits}:
                ids = [hit.id for hit in hits if hit.kind == kind and hit.dataset in names]
                found = await surroundings.snippets(tx, BY_NAME[kind], ids, list(words.weights), words.language)
                snippets |= {(kind, row_id): text for row_id, text in found.items()}
    return [replace(hit, snippet=snippets.get((hit.kind, hit.id))) for hit in hits]
