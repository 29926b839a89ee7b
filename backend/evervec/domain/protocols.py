"""The protocols of the providers' clients: one embeds texts, one extracts knowledge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evervec.domain.extraction.knowledge import DatasetKnowledge, Extraction, MessageText, Scores

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EmbedLimits:
    """The limits of one request to a provider. `text_tokens` is the longest text that is embedded whole.

    `tokens` is None where a request may have any number of them, so that nobody needs to count. An embedder that `splits`
    makes one vector of the windows of a longer text by itself, and counts tokens exactly.
    """

    texts: int = 256
    tokens: int | None = 200_000
    text_tokens: int | None = None
    splits: bool = False


@dataclass(frozen=True)
class ModelProbe:
    """What a probe found out about a model: the width of its vectors, and the longest text that it takes, if it says so.

    `refused_options` are options of a request that the server refuses, so that they are not sent. `variant` says how texts
    are given to the model, where that makes other vectors than the model alone: it is part of the space's name.
    """

    dimensions: int
    text_tokens: int | None = None
    refused_options: tuple[str, ...] = ()
    variant: str = ""


class Embedder(Protocol):
    """Turns texts into vectors of one embedding space."""

    @property
    def name(self) -> str:
        """Return the provider's name in messages, for example `ollama`."""
        ...

    @property
    def model(self) -> str:
        """Return the model's name at the provider."""
        ...

    @property
    def limits(self) -> EmbedLimits:
        """Return the packing limits of one request."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text: exactly where the tokenizer is available, else an upper estimate.

        Takes its time and blocks: call it in a thread for more than a few texts. May raise a `ProviderError` subclass.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed 1..limits.texts texts.

        Returns `(n, dim) float32`, one row per text in the order given, exactly as the provider answered: the
        check of `domain.vectors` (count, width, finite, non-zero) judges it. Raises a `ProviderError` subclass.
        """
        ...

    async def embed_query(self, text: str) -> Vectors:
        """Embed what somebody asks for: models with a prefix or a task type take a question differently from a document.

        Returns `(1, dim) float32` of the same space, as the provider answered. Raises a `ProviderError` subclass.
        """
        ...

    async def probe(self) -> ModelProbe:
        """Find out by a request what the model is; afterwards `limits.text_tokens` is known.

        Raises a `ProviderError` subclass; `ConfigError` says what to type next.
        """
        ...

    async def model_digest(self) -> str | None:
        """Return the digest of the model's weights, where the server tells one."""
        ...

    async def aclose(self) -> None:
        """Release connections; may be called twice."""
        ...


class Extractor(Protocol):
    """Scores messages and extracts knowledge from them."""

    @property
    def name(self) -> str:
        """Return the extractor's name in messages, for example `local`."""
        ...

    async def score(self, messages: Sequence[MessageText]) -> Scores:
        """Return one score per message, in the order given, and the tokens that it took. Raises a `ProviderError` subclass."""
        ...

    async def extract(self, messages: Sequence[MessageText], known: DatasetKnowledge) -> Extraction:
        """Return topics, atoms and links found in the messages, given what the dataset already knows.

        Raises a `ProviderError` subclass; `BadResponseError` if the answer could not be repaired.
        """
        ...

    async def aclose(self) -> None:
        """Release connections; may be called twice."""
        ...
