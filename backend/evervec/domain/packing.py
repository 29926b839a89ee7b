"""Packs texts into requests: as few as a provider's limits allow, texts of similar length together."""

from collections.abc import Iterator, Sequence
from math import inf

from evervec.domain.protocols import EmbedLimits


def pack(sizes: Sequence[int], limits: EmbedLimits) -> Iterator[list[int]]:
    """Yield indexes of texts, batch by batch, shortest first: padding is wasted work on a local model.

    Every index comes once; a batch holds at most `limits.texts` texts and `limits.tokens` tokens, except that a
    longer text is alone in its batch. `sizes` are tokens; without a limit on tokens any measure of length will do.
    """
    most = inf if limits.tokens is None else limits.tokens
    batch: list[int] = []
    total = 0
    for index in sorted(range(len(sizes)), key=sizes.__getitem__):
        if batch and (len(batch) >= limits.texts or total + sizes[index] > most):
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += sizes[index]
    if batch:
        yield batch
