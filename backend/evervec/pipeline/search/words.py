"""Search by words: the words of a question, the rows that have them, and both lists ranked together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evervec.domain import ranking
from evervec.domain.ranking import FUSED_ROWS, QuestionWords
from evervec.pipeline.search.scope import Scope
from evervec.store.database.session import ReadTx
from evervec.store.embeddings import neighbours
from evervec.store.embeddings.hits import HitRanks, SearchHit
from evervec.store.words import frequencies, matching
from evervec.store.words.frequencies import WordFrequencies
from evervec.store.words.matching import MatchedRow


@dataclass(frozen=True)
class AskedWords:
    """The words of a question in each language of a scope, with the datasets that have it."""

    parts: Sequence[tuple[Scope, QuestionWords]] = ()

    @property
    def is_rare(self) -> bool:
        """Return whether the question has a word that few rows have, or a phrase."""
        return any(words.is_rare for _, words in self.parts)


async def ask(tx: ReadTx, kept: WordFrequencies, scope: Scope, text: str) -> AskedWords:
    """Return the words of a question, weighed by how rare they are in the datasets in scope."""
    languages = sorted({dataset.language for dataset in scope.datasets if dataset.language is not None})
    if not languages:
        return AskedWords()
    words = await frequencies.words_of(tx, text, languages)
    phrases = ranking.phrases_of(text)
    parts: list[tuple[Scope, QuestionWords]] = []
    for language in languages:
        part = replace(scope, datasets=[one for one in scope.datasets if one.language == language])
        rows, length = await kept.totals(tx, part.dataset_ids)
        counts = await kept.counts(tx, part.dataset_ids, words[language])
        parts.append((part, ranking.weigh(language, counts, rows, length, phrases)))
    return AskedWords(parts)


async def rank(
    tx: ReadTx,
    asked: AskedWords,
    scope: Scope,
    query: NDArray[np.float32] | None,
    nearest: Sequence[SearchHit],
    k: int,
) -> list[SearchHit]:
    """Return the k best rows by words, and by meaning if there is a query: of those nearest to it, and of those with its words."""
    matched = {}
    there = {(hit.kind, hit.id) for hit in nearest}
    for part, words in asked.parts:
        led_to = await matching.best(
            tx,
            words,
            part.dataset_ids,
            part.kinds,
            space_id=scope.space_id,
            condition=scope.condition,
            most=max(k, FUSED_ROWS),
        )
        # one that is nearest may be behind many others by its words alone
        unseen = sorted(there - {(row.kind, row.id) for row in led_to})
        for row in (*led_to, *await matching.of_rows(tx, words, part.dataset_ids, unseen)):
            matched[row.kind, row.id] = (row, words)
    missing = [row.vector_id for key, (row, _) in matched.items() if key not in there and row.vector_id is not None]
    others = await neighbours.rejoin(
        tx,
        query,
        missing,
        dataset_ids=scope.dataset_ids,
        kinds=scope.kinds,
        condition=scope.condition,
        without_vector=True,
    )
    hits = [*nearest, *others]
    if not hits:
        return []
    covered, by_words = _scored(hits, matched)
    scores = by_words
    if query is not None:
        cosines = np.array([np.nan if hit.similarity is None else hit.similarity for hit in hits])
        closest = np.array([hit.score for hit in nearest[:FUSED_ROWS]])
        scores = ranking.together(cosines, closest, by_words, float(covered.max()))
    ranks = _ranks(len(nearest), by_words)
    best = np.argsort(-scores, kind="stable")[:k]
    return [
        replace(hits[at], score=float(scores[at]), words=round(float(covered[at]), 6), ranks=ranks[at])
        for at in best.tolist()
    ]


def _ranks(nearest: int, by_words: NDArray[np.float64]) -> list[HitRanks]:
    """Return the places of rows in both lists, of which the first `nearest` are those nearest in meaning."""
    order = np.argsort(-by_words, kind="stable")
    places = np.empty(len(by_words), np.int64)
    places[order] = np.arange(1, len(by_words) + 1)
    return [
        HitRanks(at + 1 if at < nearest else None, int(place) if by_words[at] > 0 else None)
        for at, place in enumerate(places.tolist())
    ]


def _scored(
    hits: Sequence[SearchHit], matched: dict[tuple[str, int], tuple[MatchedRow, QuestionWords]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coverage and the score by words `(n,)` of some hits, 0 for those without a word that leads to them."""
    covered, by_words = np.zeros(len(hits)), np.zeros(len(hits))
    for place, hit in enumerate(hits):
        found = matched.get((hit.kind, hit.id))
        if found is None:
            continue
        row, words = found
        text = " ".join(hit.text.casefold().split())
        present = sum(phrase.casefold() in text for phrase in words.phrases)
        covered[place] = ranking.coverage(np.array(row.matched), np.array(float(present)), words)
        by_words[place] = ranking.by_words(covered[place], np.array(float(row.length)), words.average_length)
    return covered, by_words
