"""Texts into requests: as few as a provider's limits allow, texts of like length together."""

from collections.abc import Iterator, Sequence

from evervec.domain.protocols import EmbedLimits


def pack(tokens: Sequence[int], limits: EmbedLimits) -> Iterator[list[int]]:
    """Indexes of texts, batch by batch, shortest first: padding is wasted work on a local model.

    Every index comes once; a batch holds at most `limits.texts` texts and `limits.tokens` tokens, except that a
    text longer than that travels alone.
    """
    batch: list[int] = []
    total = 0
    for index in sorted(range(len(tokens)), key=tokens.__getitem__):
        if batch and (len(batch) >= limits.texts or total + tokens[index] > limits.tokens):
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += tokens[index]
    if batch:
        yield batch
