"""What a search answers: the hits, how they were found, and what that is true at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evervec.store.embeddings.hits import SearchHit


@dataclass(frozen=True)
class WordWeight:
    """A word of the question as rows have it, in a language: what it weighs, and whether it leads to rows by itself."""

    language: str
    word: str
    weight: float
    leads: bool


@dataclass(frozen=True)
class SearchExplanation:
    """How an answer came about: which kinds were searched, with which words, and the milliseconds of each stage."""

    kinds: Sequence[str]
    datasets: int
    words: Sequence[WordWeight]
    stages: Mapping[str, float]


@dataclass(frozen=True)
class SearchAnswer:
    """The hits of a search, best first; also a sequence of them.

    `mode` is how it was searched: by meaning (`vector`), by `words`, or by both (`hybrid`). `engine` is the one that compared
    vectors: `mirror` (FAISS), `pgvector` (HNSW) or `exact`, `mirror+pgvector` where a dataset has no mirror; `words` where none
    did. `watermark` is the transaction id below which every committed row was searched. `widened` is whether
    an index had to search further than usual, because a filter was narrow or many rows were deleted. `merged_by` is
    `score`, or `rank` where the datasets are of several spaces: their scores can not be compared. `unanswered` names the
    datasets that were not searched by meaning, because no provider embedded the text for them, with the reason.
    """

    engine: str
    watermark: str
    pending_in_scope: int
    milliseconds: float
    hits: Sequence[SearchHit]
    widened: bool = False
    merged_by: str = "score"
    unanswered: Sequence[str] = ()
    mode: str = "vector"
    explanation: SearchExplanation | None = None

    def __iter__(self) -> Iterator[SearchHit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, place: int) -> SearchHit:
        return self.hits[place]
