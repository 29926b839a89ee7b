"""The embedder that asks an Ollama server, a whole batch of texts in one request; knows no other provider."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evervec.domain import usage
from evervec.domain.protocols import EmbedLimits, ModelProbe, Vectors
from evervec.embedders.remote import RemoteEmbedder
from evervec.embedders.vectors import as_array, width_of
from evervec.errors import BadInputError, ProviderError
from evervec.vendors.ollama.client import OllamaClient, OllamaDeadlines

OLLAMA_LIMITS = EmbedLimits(texts=32, tokens=1_000_000)


class OllamaEmbedder(RemoteEmbedder):
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
        super().__init__(name, model, limits)
        self._client = OllamaClient(
            base_url,
            model,
            provider=name,
            instead="a model that embeds, for example nomic-embed-text",
            api_key=api_key,
            deadlines=deadlines,
            max_bytes=max_bytes,
        )

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, dim) float32` as answered, NaN and missing rows included. Raise a `ProviderError` subclass."""
        try:
            answer = await self._client.embed(model=self._model, input=list(texts), truncate=False)
        except UnicodeEncodeError:
            raise BadInputError(self._name, "a text holds a lone surrogate, which is not Unicode") from None
        usage.tell(answer.prompt_eval_count)
        return as_array(answer.embeddings, self._name)

    async def probe(self) -> ModelProbe:
        """Ask what the model is: its context from `/api/show`, its width by embedding two texts.

        Raise a `ProviderError` subclass; `ConfigError` says what to type next.
        """
        shown = await self._client.show(self._model)
        context = context_length(shown.modelinfo or {})
        self._limits = replace(self._limits, text_tokens=context)
        return ModelProbe(await width_of(self), context)

    async def model_digest(self) -> str | None:
        """Return the digest that `/api/tags` tells for the model; None where it tells none."""
        try:
            listed = await self._client.list()
        except ProviderError:
            return None  # a proxy may let nothing through but /api/embed
        wanted = (self._model, f"{self._model}:latest")
        return next((one.digest for one in listed.models if one.model in wanted), None)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def context_length(model_info: Mapping[str, Any]) -> int | None:
    """Return `<architecture>.context_length` of `/api/show`, in tokens."""
    for key, value in model_info.items():
        if key.endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
    return None
