"""A search whose hits are documents, as stores of other frameworks have them: each once, with the score of its best chunk."""

from typing import Any

from evervec.errors import UnknownDatasetError, UnknownProjectError
from evervec.library.core import SemanticCore

MOST_CHUNKS_ASKED = 1_000


async def nearest_documents(core: SemanticCore, text: str, k: int, how: dict[str, Any]) -> dict[str, float]:
    """Return the uris of the k documents nearest to a text with their scores, best first; none of an unknown dataset.

    As many chunks are asked for as that takes, 1,000 at most. `how` are options of `SemanticCore.search`; unless they name
    another mode, a score is the cosine similarity.
    """
    asked, scores = k, dict[str, float]()
    while True:
        try:
            hits = await core.search(text, asked, **{"mode": "vector", **how, "kind": "chunk"})
        except (UnknownDatasetError, UnknownProjectError):
            return {}  # it begins with its first write
        for hit in hits:
            if hit.place is not None and len(scores) < k:
                scores.setdefault(hit.place.document, hit.score)
        if len(scores) == k or len(hits) < asked or asked >= MOST_CHUNKS_ASKED:
            return scores
        asked = min(asked * 4, MOST_CHUNKS_ASKED)
