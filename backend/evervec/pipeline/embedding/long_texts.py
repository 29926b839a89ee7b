"""Texts longer than the model takes: embedded in windows whose vectors make one, or refused; never cut in silence."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from evervec.domain import packing
from evervec.domain.protocols import Embedder, EmbedLimits, Vectors
from evervec.domain.vectors import WeightedSums
from evervec.domain.vendors import FREE_TYPES
from evervec.embedders.pieces import split_at_best
from evervec.errors import TooLargeError
from evervec.pipeline.embedding.text_tokens import TextTokens
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.providers import Provider

LEAST_WINDOW = 64
"""Tokens. No model takes less: one that refuses so little refuses the text for another reason."""

COMPARED_WORDS = 200
"""Words of a text from which on its server's count of tokens is compared: no model's window is shorter."""


@dataclass(frozen=True)
class TextWindow:
    """A part of a text, and its tokens, counted or estimated."""

    text: str
    tokens: int


class LongTexts:
    """Knows for the texts of one claim which are too long, and cuts those into windows."""

    def __init__(self, provider: Provider, embedder: Embedder, tokens: TextTokens) -> None:
        self._provider, self._embedder, self._tokens = provider, embedder, tokens
        self._refuses = provider.encoder.refuses_long_texts
        self._narrowed: dict[bytes, int] = {}
        """By content hash, the longest window of a text that the provider has refused."""
        self._windows: dict[bytes, int] = {}
        """By content hash, how many windows a text was embedded in."""
        self._count_is_plausible = True
        self._read_of_one: int | None = None
        """Tokens that the server counted in the one text that it has cut."""

    def is_long(self, row: ClaimedRow) -> bool:
        """Return whether a text is not sent as it is, or not sent at all."""
        return row.content_hash in self._narrowed or (not self._splits and self._exceeds(row)) or self._is_refused(row)

    def refusal(self, row: ClaimedRow) -> TooLargeError | None:
        """Return the error of a text that is certainly longer than the model takes, where such texts are refused."""
        if not self._is_refused(row):
            return None
        most = self._provider.space.text_tokens
        return TooLargeError(self._provider.name, f"the text has {self._least(row):,} tokens, the model takes {most:,}")

    def narrow(self, row: ClaimedRow) -> bool:
        """Halve the windows of a text that the provider did not take; return False when that is in vain."""
        known = self._narrowed.get(row.content_hash) or self._tokens.of(row)
        half = min(known, self._provider.space.text_tokens or known, self._read_of_one or known) // 2
        if self._refuses or half < LEAST_WINDOW:
            return False
        self._narrowed[row.content_hash] = half
        return True

    async def requests(self, row: ClaimedRow, limits: EmbedLimits) -> list[list[TextWindow]]:
        """Cut a text into windows at good places, and pack them into requests."""
        most = self._narrowed.get(row.content_hash) or self._provider.space.text_tokens or self._tokens.of(row)
        windows = await asyncio.to_thread(self._cut, row.text, most)
        self._windows[row.content_hash] = len(windows)
        packed = packing.pack([window.tokens for window in windows], limits)
        return [[windows[index] for index in indexes] for indexes in packed]

    def count(self, row: ClaimedRow) -> int | None:
        """Return in how many windows a text was embedded, None for one that was embedded whole."""
        if self._splits and self._exceeds(row):
            return ceil(self._tokens.of(row) / (self._provider.space.text_tokens or 1))
        return self._windows.get(row.content_hash)

    def compare(self, texts: Sequence[str], told: int | None) -> None:
        """Compare the tokens that a server counted with the least that the texts have: a token for each word.

        Raises `TooLargeError` for a server that has cut a text. One whose count is too low for short texts, too, counts
        something else.
        """
        if not told or self._provider.type in FREE_TYPES:
            return
        words = [len(text.split()) for text in texts]
        if max(words) < COMPARED_WORDS:
            self._count_is_plausible = told >= sum(words)
        elif self._count_is_plausible and told < sum(words):
            self._read_of_one = told if len(texts) == 1 else self._read_of_one
            raise TooLargeError(
                self._provider.name, f"it counted {told:,} tokens in {sum(words):,} words: it cuts long texts"
            )

    @property
    def _splits(self) -> bool:
        return self._embedder.limits.splits

    def _exceeds(self, row: ClaimedRow) -> bool:
        most = self._provider.space.text_tokens
        return most is not None and self._tokens.of(row) > most

    def _is_refused(self, row: ClaimedRow) -> bool:
        most = self._provider.space.text_tokens
        return self._refuses and most is not None and self._least(row) > most

    def _least(self, row: ClaimedRow) -> int:
        """Return how many tokens a text has, or has at least where the model's tokenizer is on a server."""
        return self._tokens.of(row) if self._splits else len(row.text.split())

    def _cut(self, text: str, most: int) -> list[TextWindow]:
        count = self._embedder.count_tokens
        parts = split_at_best(text, most, lambda part: count([part])[0])
        return [TextWindow(part, size) for part, size in zip(parts, count(parts), strict=True)]


def joined(windows: Sequence[TextWindow], vectors: Vectors) -> Vectors:
    """Return `(1, dim) float32` made of the vectors of all windows, weighted by their tokens; NaN if one is not sane."""
    sums = WeightedSums(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for window, unit in zip(windows, units, strict=True):
        sums.add(0, unit, window.tokens)
    return sums.vectors()
