"""An embedder whose model wants a prefix before each question and each text, whoever runs it."""

from collections.abc import Sequence
from dataclasses import replace

from evervec.domain.encoders import EncoderOptions
from evervec.domain.protocols import Embedder, EmbedLimits, ModelProbe, Vectors


class PrefixedEmbedder:
    """Another embedder, given texts and questions with their prefixes; the prefixes are part of the space."""

    def __init__(self, embedder: Embedder, options: EncoderOptions) -> None:
        self._embedder = embedder
        self._query, self._document = options.query_prefix or "", options.document_prefix or ""

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._embedder.name

    @property
    def model(self) -> str:
        """Return the model's name at the provider."""
        return self._embedder.model

    @property
    def limits(self) -> EmbedLimits:
        """Return the limits of a request."""
        return self._embedder.limits

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text with its prefix."""
        return self._embedder.count_tokens([self._document + text for text in texts])

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, each with the prefix of a document. Raise a `ProviderError` subclass."""
        return await self._embedder.embed([self._document + text for text in texts])

    async def embed_query(self, text: str) -> Vectors:
        """Embed a question with its prefix. Raise a `ProviderError` subclass."""
        return await self._embedder.embed_query(self._query + text)

    async def probe(self) -> ModelProbe:
        """Probe the model. Raise a `ProviderError` subclass."""
        found = await self._embedder.probe()
        prefixes = f"query {self._query!r}, document {self._document!r}"
        return replace(found, variant=", ".join(part for part in (found.variant, prefixes) if part))

    async def model_digest(self) -> str | None:
        """Return the digest of the model's weights, where the server tells one."""
        return await self._embedder.model_digest()

    async def aclose(self) -> None:
        """Release connections; may be called twice."""
        await self._embedder.aclose()
