"""The embedder that needs no server: WordLlama's 256 dimensions, weights out of its wheel; knows no other provider."""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from evervec.domain import usage
from evervec.domain.protocols import EmbedLimits, ModelProbe, Vectors
from evervec.domain.vendors import LOCAL
from evervec.embedders.pieces import encoded
from evervec.embedders.vectors import width_of
from evervec.errors import BadInputError, ConfigError

LOADING = Lock()
"""Texts are counted in other threads than the one that embeds: the first of them loads."""


class LocalEmbedder:
    """An embedder by WordLlama (average of token vectors) in one thread of its own; unit vectors, `(n, 256) float32`.

    A text of any length is embedded whole. A text without a token (only the empty one has none) comes back as
    NaN, as WordLlama itself answers: the engine's check of vectors refuses it. Loads on first use, never the network.
    """

    limits = EmbedLimits(texts=4096, tokens=None)
    model = LOCAL.model

    def __init__(self, name: str = "local") -> None:
        self._name = name
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evervec-local")

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._name

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count exactly the tokens that `embed` averages: about 0.3 s a megabyte, without the GIL, in any thread.

        Raise what `embed` raises.
        """
        counts = [0] * len(texts)
        with self._provider_errors():
            for row, encoding in encoded(_load().tokenizer, texts):
                counts[row] += len(encoding)
        return counts

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, 256) float32`. Raise `BadInputError` for a lone surrogate, `ConfigError` without the weights."""
        vectors, tokens = await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, list(texts))
        usage.tell(tokens)
        return vectors

    async def embed_query(self, text: str) -> Vectors:
        """Return `(1, 256) float32`: WordLlama takes a question as any text. Raise what `embed` raises."""
        return await self.embed([text])

    async def probe(self) -> ModelProbe:
        """Return the width; a text may be of any length."""
        return ModelProbe(await width_of(self))

    async def model_digest(self) -> str | None:
        """Return None: the weights come with the installation, which checks their digests."""
        return None

    async def aclose(self) -> None:
        """End the thread; texts already passed to it are finished."""
        self._thread.shutdown(wait=False)

    def _embed(self, texts: list[str]) -> tuple[Vectors, int]:
        with self._provider_errors():
            return embed_whole(_load(), texts)

    @contextmanager
    def _provider_errors(self) -> Iterator[None]:
        try:
            yield
        except (ImportError, OSError) as problem:
            raise ConfigError(
                self._name, f"WordLlama's weights are missing ({problem}). Reinstall wordllama."
            ) from None
        except (TypeError, UnicodeEncodeError):
            raise BadInputError(self._name, "a text holds a lone surrogate, which is not Unicode") from None


def embed_whole(model: Any, texts: list[str]) -> tuple[Vectors, int]:
    """Return the vectors of `model.embed(texts, norm=True)`, bit for bit, without padding, and how many tokens they are of.

    WordLlama pads every text of a batch to the longest one, which costs 2 to 5 times the time on chat messages and
    explodes on one long document. Summing text by text needs no padding and depends on no neighbour.
    """
    sums = np.zeros((len(texts), model.embedding.shape[1]), dtype=np.float32)
    counts = np.zeros((len(texts), 1), dtype=np.float32)
    for row, encoding in encoded(model.tokenizer, texts):
        ids = encoding.ids
        sums[row] += model.embedding.take(ids, axis=0, mode="clip").sum(axis=0)
        counts[row] += len(ids)
    tokens = int(counts.sum(dtype=np.int64))
    sums /= np.maximum(counts, 1)
    with np.errstate(invalid="ignore"):  # 0 / 0: a text without a token is NaN on purpose
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    return sums, tokens


def _load() -> Any:
    """Return the one model of the process: 32 MB, read-only, so that any number of threads may share it."""
    with LOADING:
        return _loaded()


@cache
def _loaded() -> Any:
    # Without it the tokenizer starts a thread pool of its own, which warns after a fork and gains nothing measurable.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with _root_logger_kept():
        import wordllama

    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(dim=256, cache_dir=folder, disable_download=True)
    model.tokenizer.no_padding()
    return model


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what WordLlama does when imported: it calls `logging.basicConfig`, which would print every library's INFO lines."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
