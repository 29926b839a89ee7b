"""The embedder that asks an Ollama server, a whole batch of texts in one request; knows no other provider."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evervec.domain.protocols import EmbedLimits, ModelProbe, Vectors
from evervec.domain.text import estimate_tokens
from evervec.embedders.vectors import as_array, width_of
from evervec.errors import BadInputError
from evervec.vendors.ollama.client import OllamaClient, OllamaDeadlines

OLLAMA_LIMITS = EmbedLimits(texts=32, tokens=1_000_000)


class OllamaEmbedder:
    """An embedder by `POST /api/embed` with `truncate: false`: a text that is too long is refused, never silently cut.

    One failing text fails its whole request and Ollama doesn't say which: the engine halves the batch.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        name: str = "ollama",
        limits: EmbedLimits = OLLAMA_LIMITS,
        deadlines: OllamaDeadlines | None = None,
        max_bytes: int = 32 << 20,
    ) -> None:
        self._name, self._model, self._limits = name, model, limits
        self._client = OllamaClient(
            base_url,
            model,
            provider=name,
            instead="a model that embeds, for example nomic-embed-text",
            api_key=api_key,
            deadlines=deadlines,
            max_bytes=max_bytes,
        )

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._name

    @property
    def model(self) -> str:
        """Return the model's name as `ollama list` prints it."""
        return self._model

    @property
    def limits(self) -> EmbedLimits:
        """Return the limits; `text_tokens` is known after `probe`."""
        return self._limits

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return estimates on the high side: the model's tokenizer is on the server.

        Good for packing and for chunks that are sure to fit (they turn out smaller than they could be); no reason
        to refuse a text.
        """
        return [estimate_tokens(text) for text in texts]

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, dim) float32` as answered, NaN and missing rows included. Raise a `ProviderError` subclass."""
        try:
            answer = await self._client.embed(model=self._model, input=list(texts), truncate=False)
        except UnicodeEncodeError:
            raise BadInputError(self._name, "a text holds a lone surrogate, which is not Unicode") from None
        return as_array(answer.embeddings, self._name)

    async def probe(self) -> ModelProbe:
        """Ask what the model is: its context from `/api/show`, its width by embedding two texts.

        Raise a `ProviderError` subclass; `ConfigError` says what to type next.
        """
        shown = await self._client.show(self._model)
        context = context_length(shown.modelinfo or {})
        self._limits = replace(self._limits, text_tokens=context)
        return ModelProbe(await width_of(self), context)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def context_length(model_info: Mapping[str, Any]) -> int | None:
    """Return `<architecture>.context_length` of `/api/show`, in tokens."""
    for key, value in model_info.items():
        if key.endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
    return None
