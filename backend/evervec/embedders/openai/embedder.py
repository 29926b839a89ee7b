"""The embedder that asks OpenAI, or a compatible server, many texts in one request; knows no other provider."""

from collections.abc import Sequence
from typing import Any, Final

from openai import omit
from pydantic import BaseModel

from evervec.domain import usage
from evervec.domain.protocols import EmbedLimits, ModelProbe, Vectors
from evervec.embedders.remote import RemoteEmbedder
from evervec.embedders.vectors import as_array, width_of
from evervec.errors import BadInputError, BadResponseError
from evervec.vendors.http import Deadlines
from evervec.vendors.openai.client import OpenAIClient

MOST_TEXTS: Final = 2048
MOST_TOKENS: Final = 250_000
"""Tokens of one request: OpenAI refuses more than 300,000, and ours are an estimate, if one on the high side."""

TEXT_TOKENS: Final = 8192
"""The longest text of OpenAI's own models; other models have limits that no call tells."""


class IndexedVector(BaseModel):
    """One vector of an answer and the index of its text, which some servers leave out."""

    embedding: list[float]
    index: int | None = None


class EmbeddingsAnswer(BaseModel):
    """The part of an answer to `POST /v1/embeddings` that is read."""

    data: list[IndexedVector]
    usage: Any = None


class OpenAIEmbedder(RemoteEmbedder):
    """An embedder by `POST /v1/embeddings`.

    A text that is too long is refused, and with it the whole request. OpenAI may not say which one it is: the engine
    halves the batch.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        base_url: str | None = None,
        name: str = "openai",
        dimensions: int | None = None,
        deadlines: Deadlines | None = None,
        max_bytes: int = 256 << 20,
    ) -> None:
        # a server that takes less refuses a request as too large, and the engine halves it
        longest = TEXT_TOKENS if model.startswith("text-embedding-") else None
        super().__init__(name, model, EmbedLimits(texts=MOST_TEXTS, tokens=MOST_TOKENS, text_tokens=longest))
        self._dimensions = dimensions
        self._client = OpenAIClient(
            provider=name, model=model, api_key=api_key, base_url=base_url, deadlines=deadlines, max_bytes=max_bytes
        )

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, dim) float32` as answered, NaN included, of whatever width came. Raise a `ProviderError` subclass."""
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            raise BadInputError(self._name, "a text holds a lone surrogate, which is not Unicode") from None
        call = self._client.embeddings.with_streaming_response.create(
            model=self._model,
            input=list(texts),
            dimensions=omit if self._dimensions is None else self._dimensions,
            encoding_format="float",  # the library would ask for base64, which not every server can
        )
        answer = await self._client.ask(call, EmbeddingsAnswer)
        usage.tell(answer.usage.get("prompt_tokens") if isinstance(answer.usage, dict) else None)
        return as_array(self._in_order(answer.data, len(texts)), self._name)

    async def probe(self) -> ModelProbe:
        """Embed two texts to find the width, which no call tells.

        Raise a `ProviderError` subclass; `ConfigError` says what to type next.
        """
        return ModelProbe(await width_of(self), self.limits.text_tokens)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _in_order(self, rows: Sequence[IndexedVector], count: int) -> list[list[float]]:
        """Return one vector for each text, by the indexes of the answer: exactly those from 0 to `count` - 1."""
        placed = {at if row.index is None else row.index: row.embedding for at, row in enumerate(rows)}
        if len(rows) != count or placed.keys() != set(range(count)):
            raise BadResponseError(self._name, f"{len(rows)} vectors for {count} texts, or not one for each of them")
        return [placed[at] for at in range(count)]
