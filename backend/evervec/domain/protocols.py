"""The protocols that have two real implementations each: who embeds, and who extracts knowledge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evervec.domain.knowledge import DatasetKnowledge, Extraction, MessageText, Score

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EmbedLimits:
    """What one request to a provider may hold. `text_tokens` is the longest text that is embedded whole.

    `tokens` is None where a request may have any number of them, and nobody needs to count.
    """

    texts: int = 256
    tokens: int | None = 200_000
    text_tokens: int | None = None


@dataclass(frozen=True)
class ModelProbe:
    """What a model turned out to be: the width of its vectors, and the longest text that it takes, if it tells."""

    dimensions: int
    text_tokens: int | None = None


class Embedder(Protocol):
    """Turns texts into vectors of one embedding space."""

    @property
    def name(self) -> str:
        """How messages call this provider, for example `ollama`."""
        ...

    @property
    def model(self) -> str:
        """The model's name at the provider."""
        ...

    @property
    def limits(self) -> EmbedLimits:
        """The packing limits of one request."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text: exact where the tokenizer is at hand, else an upper estimate.

        Takes its time and blocks: call it in a thread for more than a few texts. May raise a `ProviderError` subclass.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed 1..limits.texts texts.

        Returns `(n, dim) float32`, one row per text in the order given, exactly as the provider answered: the
        engine's sanity gate (count, width, finite, non-zero) judges it. Raises a `ProviderError` subclass.
        """
        ...

    async def probe(self) -> ModelProbe:
        """Find out by asking what the model is; `limits.text_tokens` is known from then on. Raises a `ProviderError`
        subclass; `ConfigError` says what to type next."""
        ...

    async def aclose(self) -> None:
        """Release connections; may be called twice."""
        ...


class Extractor(Protocol):
    """Scores messages and draws knowledge out of them."""

    @property
    def name(self) -> str:
        """How messages call this extractor, for example `local`."""
        ...

    async def score(self, messages: Sequence[MessageText]) -> list[Score]:
        """One score per message, in the order given. Raises a `ProviderError` subclass."""
        ...

    async def extract(self, messages: Sequence[MessageText], known: DatasetKnowledge) -> Extraction:
        """Topics, atoms and links found in the messages, given what the dataset knows already.

        Raises a `ProviderError` subclass; `BadResponseError` when the answer could not be repaired.
        """
        ...

    async def aclose(self) -> None:
        """Release connections; may be called twice."""
        ...
