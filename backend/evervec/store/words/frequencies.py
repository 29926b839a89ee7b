"""How many rows have a word: counted in the datasets that are searched. What many rows have is remembered for some minutes."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from time import monotonic
from uuid import UUID

from evervec.store.database.session import ReadTx
from evervec.store.schema.words import WORDS_FUNCTION

MOST_COUNTED = 20_000
"""A word is counted up to here: more rows than this are more than any search looks at."""
LEAST_REMEMBERED = 1_000
COUNT_SECONDS = 300.0
MOST_COUNTS = 20_000

ASKED_WORDS = f"""
SELECT l.language, tsvector_to_array({WORDS_FUNCTION}(l.language, $1)) AS words FROM unnest($2::text[]) AS l (language)
"""
WORD_TOTALS = "SELECT count(*) AS rows, coalesce(avg(length), 1)::float8 AS length FROM row_words WHERE dataset_id = ANY($1) AND words IS NOT NULL"
WORD_COUNTS = """
SELECT q.word, (SELECT count(*) FROM (
    SELECT FROM row_words w WHERE w.words @@ q.query AND w.dataset_id = ANY($1) LIMIT $4
) found) AS rows
FROM (SELECT * FROM unnest($2::text[], $3::text[]::tsquery[]) AS u (word, query) OFFSET 0) q
"""


def query_of(word: str) -> str:
    """Return the text of a query for one word, whatever characters it has."""
    doubled = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


class WordFrequencies:
    """What was counted last, by datasets. One a process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[float, int | tuple[int, float]]] = OrderedDict()

    async def totals(self, tx: ReadTx, dataset_ids: Sequence[UUID]) -> tuple[int, float]:
        """Return how many rows some datasets have, and how many different words a row has on average."""
        key = _place(dataset_ids)
        kept = self._get(key)
        if isinstance(kept, tuple):
            return kept
        row = await tx.fetchrow(WORD_TOTALS, list(dataset_ids))
        found = (0, 1.0) if row is None else (row["rows"], row["length"])
        if found[0] >= LEAST_REMEMBERED:
            self._put(key, found)
        return found

    async def counts(self, tx: ReadTx, dataset_ids: Sequence[UUID], words: Sequence[str]) -> dict[str, int]:
        """Return how many rows of some datasets have each word, up to `MOST_COUNTED`."""
        place = _place(dataset_ids)
        found = {word: kept for word in words if isinstance(kept := self._get((place, word)), int)}
        missing = [word for word in words if word not in found]
        if missing:
            rows = await tx.fetch(
                WORD_COUNTS, list(dataset_ids), missing, [query_of(word) for word in missing], MOST_COUNTED
            )
            for row in rows:
                found[row["word"]] = row["rows"]
                # few are counted quickly, and a word that nobody had may be in the row that was written just now
                if row["rows"] >= LEAST_REMEMBERED:
                    self._put((place, row["word"]), row["rows"])
        return {word: found[word] for word in words}

    def _get(self, key: Hashable) -> int | tuple[int, float] | None:
        kept = self._kept.get(key)
        if kept is None or monotonic() - kept[0] > COUNT_SECONDS:
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def _put(self, key: Hashable, value: int | tuple[int, float]) -> None:
        self._kept[key] = monotonic(), value
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_COUNTS:
            self._kept.popitem(last=False)


def _place(dataset_ids: Sequence[UUID]) -> bytes:
    """Return what stands for some datasets: the ids of 5,000, once a word, would take more memory than all else."""
    return blake2b(b"".join(one.bytes for one in dataset_ids), digest_size=16).digest()


async def words_of(tx: ReadTx, text: str, languages: Sequence[str]) -> dict[str, list[str]]:
    """Return the words of a text in each language, as rows have them."""
    return {row["language"]: row["words"] for row in await tx.fetch(ASKED_WORDS, text, list(languages))}
