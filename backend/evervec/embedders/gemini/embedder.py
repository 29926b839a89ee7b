"""The embedder that asks the Gemini API, up to a hundred texts in one request; knows no other provider.

Google's library writes the requests; our client sends them, and what it gives the library to read was checked before:
the library takes strings for numbers and a missing vector for none.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
from google import genai
from google.genai import types
from google.genai.client import DebugConfig
from pydantic import BaseModel

from evervec.domain import usage
from evervec.domain.protocols import EmbedLimits, ModelProbe, Vectors
from evervec.embedders.gemini.lines import DOCUMENT_TASK
from evervec.embedders.remote import RemoteEmbedder
from evervec.embedders.vectors import as_array, width_of
from evervec.errors import BadInputError, ConfigError
from evervec.vendors.gemini.client import VERSION, GeminiClient, require_model
from evervec.vendors.http import Deadlines, read_strictly

GEMINI_LIMITS = EmbedLimits(texts=100, tokens=None)
"""More than 100 are refused; Google names no limit for their tokens."""

QUERY_TASK = "RETRIEVAL_QUERY"
_NO_SUCH_ROUTE = (404, 405, 501)


class _Embedding(BaseModel):
    values: list[float]


class _Answer(BaseModel):
    embeddings: list[_Embedding]
    usageMetadata: Any = None  # noqa: N815  # the API's own word


class _CheckedClient(GeminiClient):
    """A client that passes only answers to the library whose vectors are lists of numbers."""

    async def request(self, method: str, url: httpx.URL | str, **how: Any) -> httpx.Response:
        """Do what `GeminiClient.request` does; raise `BadResponseError` for an answer of another shape."""
        response = await super().request(method, url, **how)
        told = read_strictly(_Answer, response.content, self.provider).usageMetadata
        usage.tell(told.get("promptTokenCount") if isinstance(told, dict) else None)
        return response


class GeminiEmbedder(RemoteEmbedder):
    """An embedder by `batchEmbedContents`, each text in a content of its own: the parts of one become one vector."""

    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        base_url: str | None = None,
        name: str = "gemini",
        dimensions: int | None = None,
        task_types: bool = False,
        deadlines: Deadlines | None = None,
        max_bytes: int = 32 << 20,
    ) -> None:
        super().__init__(name, model, GEMINI_LIMITS)
        self._path = f"models/{require_model(name, model)}"
        self._variant = "retrieval task types" if task_types else ""
        self._document, self._query = (
            types.EmbedContentConfig(output_dimensionality=dimensions, task_type=task if task_types else None)
            for task in (DOCUMENT_TASK, QUERY_TASK)
        )
        self._client = _CheckedClient(
            base_url, provider=name, api_key=api_key, deadlines=deadlines, max_bytes=max_bytes
        )
        self._models = _library(self._client, api_key).aio.models

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, dim) float32` as answered, missing rows and NaN included; shortened vectors are not of length one.

        Raise a `ProviderError` subclass.
        """
        return await self._embed(texts, self._document)

    async def embed_query(self, text: str) -> Vectors:
        """Return `(1, dim) float32` of a question, which Google is told to be one with `task_types`."""
        return await self._embed([text], self._query)

    async def _embed(self, texts: Sequence[str], config: types.EmbedContentConfig) -> Vectors:
        if not all(_is_unicode(text) for text in texts):
            raise BadInputError(self._name, "a text holds a lone surrogate, which is not Unicode")
        contents = [types.Content(parts=[types.Part(text=text)]) for text in texts]
        try:
            answer = await self._models.embed_content(model=self._path, contents=contents, config=config)
        except ValueError as problem:  # the library's own, before anything is sent
            raise ConfigError(self._name, f"Google's library refuses: {problem}.") from None
        return as_array([embedding.values for embedding in answer.embeddings or []], self._name)

    async def probe(self) -> ModelProbe:
        """Ask what the model is: its longest text from `models/{model}`, its width by embedding two texts.

        Raise a `ProviderError` subclass; `ConfigError` says what to type next.
        """
        response = await self._client.ask("GET", f"/{VERSION}/{self._path}")
        if not response.is_success and response.status_code not in _NO_SUCH_ROUTE:
            raise self._client.error_of(self._client.refusal(response))
        longest = self._client.document(response).get("inputTokenLimit") if response.is_success else None
        known = longest if isinstance(longest, int) and longest > 0 else None
        self._limits = replace(self._limits, text_tokens=known)
        return ModelProbe(await width_of(self), known, variant=self._variant)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _library(client: GeminiClient, api_key: str) -> genai.Client:
    """Return Google's library on our connection, with everything that it would take from the environment."""
    return genai.Client(
        vertexai=False,
        api_key=api_key,
        debug_config=DebugConfig(client_mode=None, replays_directory=None, replay_id=None),
        http_options=types.HttpOptions(
            base_url=str(client.base_url), api_version=VERSION, httpx_async_client=client, retry_options=None
        ),
    )


def _is_unicode(text: str) -> bool:
    """Return whether the text can be written as UTF-8; the library would send a lone surrogate as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
