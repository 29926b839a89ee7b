"""The tokens of claimed texts: what a request of them needs, and which of them fit where little is left."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from evervec.domain.protocols import Embedder, EmbedLimits
from evervec.domain.text import estimate_tokens
from evervec.domain.vendors import FREE_TYPES
from evervec.errors import ProviderError
from evervec.pipeline.budget.allowance import Load
from evervec.store.budget.budgets import Grant
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.providers import Provider


class TextTokens:
    """Counts the tokens of texts for one provider, each once."""

    def __init__(self, provider: Provider, embedder: Embedder) -> None:
        self._provider, self._embedder = provider, embedder
        self._counted: dict[bytes, int] = {}
        """By content hash."""

    @property
    def limits(self) -> EmbedLimits:
        """Return the limits of a request, which never holds more than the provider takes in a minute."""
        limits, pace = self._embedder.limits, self._provider.tokens_per_minute
        return limits if pace is None else replace(limits, tokens=min(pace, limits.tokens or pace))

    async def sizes(self, rows: Sequence[ClaimedRow]) -> list[int]:
        """Return a size for each text, to pack requests by: its tokens, or its characters where nobody needs tokens."""
        # exact tokens take a local tokenizer half as long as the embedding itself, which counts them anyway
        if self._counts_itself:
            return [len(row.text) for row in rows]
        try:
            # the first count of a process may load a model
            sizes = await asyncio.to_thread(self._embedder.count_tokens, [row.text for row in rows])
        except ProviderError:  # embedding them raises it again, where each error is taken care of
            return [estimate_tokens(row.text) for row in rows]
        self._counted.update((row.content_hash, size) for row, size in zip(rows, sizes, strict=True))
        return sizes

    def of(self, row: ClaimedRow) -> int:
        """Return the tokens of one text, counted or estimated."""
        return self._counted.get(row.content_hash) or estimate_tokens(row.text)

    def by_dataset(self, rows: Sequence[ClaimedRow]) -> dict[UUID, list[int]]:
        """Return the tokens of each row, by dataset."""
        sizes: dict[UUID, list[int]] = {}
        for row in rows:
            sizes.setdefault(row.dataset_id, []).append(self.of(row))
        return sizes

    def loads(self, request: Sequence[Sequence[ClaimedRow]]) -> dict[UUID | None, Load]:
        """Return what a request is, by dataset; where the model counts itself, characters are the weights of its count."""
        loads: dict[UUID | None, Load] = {}
        for group in request:
            load = loads.setdefault(group[0].dataset_id, Load())
            load.texts += 1
            load.tokens += len(group[0].text) if self._counts_itself else self.of(group[0])
        return loads

    def fitting(self, request: Sequence[list[ClaimedRow]], grant: Grant) -> list[list[ClaimedRow]]:
        """Return the texts, in their order, that a ceiling still has room for, and those of other datasets than its own."""
        fitting, room = list[list[ClaimedRow]](), grant.room
        for group in request:
            if grant.dataset_id not in (None, group[0].dataset_id):
                fitting.append(group)
            elif self.of(group[0]) <= room:
                fitting.append(group)
                room -= self.of(group[0])
        return fitting

    @property
    def _counts_itself(self) -> bool:
        """Whether the model is free, takes texts of any length and tells what it counted, which nobody wants to know before."""
        free = self._provider.type in FREE_TYPES and not self._provider.limited
        return free and self._embedder.limits.tokens is None and self._provider.space.text_tokens is None
