"""What the embedders behind an API have in common: tokens that can only be estimated, and one way for texts and questions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from evervec.domain.protocols import Vectors
from evervec.domain.text import estimate_tokens
from evervec.embedders.named import NamedEmbedder


class RemoteEmbedder(NamedEmbedder, ABC):
    """An embedder whose model runs on somebody's server."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return estimates on the high side: the model's tokenizer is on the server.

        Good for packing and for chunks that are sure to fit (they turn out smaller than they could be); no reason
        to refuse a text.
        """
        return [estimate_tokens(text) for text in texts]

    @abstractmethod
    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, dim) float32` as answered. Raise a `ProviderError` subclass."""

    async def embed_query(self, text: str) -> Vectors:
        """Return `(1, dim) float32` of a question, which is sent like a document where the model knows no difference."""
        return await self.embed([text])

    async def model_digest(self) -> str | None:
        """Return None: no call tells the digest of the model's weights."""
        return None
