"""The embedder that asks OpenAI, or a compatible server, many texts in one request; knows no other provider."""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

from evervec.domain import usage
from evervec.domain.protocols import EmbedLimits, ModelProbe, Vectors
from evervec.embedders.remote import RemoteEmbedder
from evervec.embedders.vectors import as_array, width_of
from evervec.errors import BadInputError, BadResponseError, ConfigError, ProviderError
from evervec.vendors.http import Deadlines
from evervec.vendors.openai.client import OpenAIClient
from evervec.vendors.openai.refusals import OptionRefusedError

MOST_TEXTS: Final = 2048
MOST_TOKENS: Final = 250_000
"""Tokens of one request: OpenAI refuses more than 300,000, and ours are an estimate, if one on the high side."""

DIMENSIONS: Final = "dimensions"
ENCODING: Final = "encoding_format"

TEXT_TOKENS: Final = 8192
"""The longest text of OpenAI's own models; other models have limits that no call tells."""


class IndexedVector(BaseModel):
    """One vector of an answer and the index of its text, which some servers leave out."""

    embedding: list[float] | str
    index: int | None = None

    def numbers(self) -> Sequence[float]:
        """Return the vector; some servers send base64 whatever they are asked for. Raise `ValueError` for other texts."""
        if isinstance(self.embedding, str):
            return np.frombuffer(b64decode(self.embedding, validate=True), dtype="<f4").tolist()  # type: ignore[no-any-return]
        return self.embedding


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
        api_key: str | None,
        base_url: str | None = None,
        name: str = "openai",
        dimensions: int | None = None,
        refused_options: Sequence[str] = (),
        request_texts: int | None = None,
        deadlines: Deadlines | None = None,
        max_bytes: int = 256 << 20,
    ) -> None:
        # a server that takes less refuses a request as too large, and the engine sends smaller ones from then on
        longest = TEXT_TOKENS if model.startswith("text-embedding-") else None
        super().__init__(
            name,
            model,
            EmbedLimits(texts=min(request_texts or MOST_TEXTS, MOST_TEXTS), tokens=MOST_TOKENS, text_tokens=longest),
        )
        self._dimensions = dimensions
        self._refused = frozenset(refused_options)
        self._client = OpenAIClient(
            provider=name, model=model, api_key=api_key, base_url=base_url, deadlines=deadlines, max_bytes=max_bytes
        )

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, dim) float32` as answered, NaN included, of whatever width came. Raise a `ProviderError` subclass."""
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            raise BadInputError(self._name, "a text holds a lone surrogate, which is not Unicode") from None
        call = self._client.sending("/embeddings", self._body(texts))
        answer = await self._client.ask(call, EmbeddingsAnswer)
        usage.tell(answer.usage.get("prompt_tokens") if isinstance(answer.usage, dict) else None)
        return as_array(self._in_order(answer.data, len(texts)), self._name)

    def _body(self, texts: Sequence[str]) -> dict[str, Any]:
        # the library would ask for base64, which not every server can
        options = {DIMENSIONS: self._dimensions, ENCODING: "float"}
        wanted = {name: value for name, value in options.items() if value is not None and name not in self._refused}
        return {"model": self._model, "input": list(texts), **wanted}

    async def probe(self) -> ModelProbe:
        """Embed two texts to find the width, which no call tells, and the options that the server refuses.

        Raise a `ProviderError` subclass; `ConfigError` says what to type next.
        """
        width = await self._learn_width()
        if self._dimensions not in (None, width):
            raise ConfigError(
                self._name,
                f"{self._dimensions} dimensions were asked for, and its vectors have {width}: model {self._model!r} has no "
                "other width there. Leave --dimensions out.",
            )
        return ModelProbe(width, self.limits.text_tokens, tuple(sorted(self._refused)))

    async def _learn_width(self) -> int:
        """Return the width. Our own plain texts can not be at fault: a refusal of them is one of the options."""
        sent = [name for name in (ENCODING, DIMENSIONS) if name in self._body([])]
        tries = [frozenset[str](), *(frozenset([name]) for name in sent), frozenset(sent)]
        problem: ProviderError | None = None
        known = self._refused
        for refused in dict.fromkeys(tries):
            self._refused = known | refused
            try:
                return await width_of(self)
            except (BadInputError, OptionRefusedError) as error:
                problem = problem or error
        self._refused = known
        raise problem or ConfigError(self._name, "it was not asked")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _in_order(self, rows: Sequence[IndexedVector], count: int) -> list[Sequence[float]]:
        """Return one vector for each text, by the indexes of the answer: exactly those from 0 to `count` - 1."""
        placed = {at if row.index is None else row.index: row for at, row in enumerate(rows)}
        if len(rows) != count or placed.keys() != set(range(count)):
            raise BadResponseError(self._name, f"{len(rows)} vectors for {count} texts, or not one for each of them")
        try:
            return [placed[at].numbers() for at in range(count)]
        except ValueError:
            raise BadResponseError(self._name, "a vector is a text that is no base64 of numbers") from None
