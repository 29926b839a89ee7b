"""The embedder that runs a model in threads of its own: never on the loop, and no network once the model is here."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock
from typing import Final
from weakref import WeakValueDictionary

from evervec.domain import usage
from evervec.domain.encoders import EncoderOptions
from evervec.domain.protocols import EmbedLimits, ModelProbe, Vectors
from evervec.embedders.in_process.encoder import Encoder, StoppedError
from evervec.embedders.named import NamedEmbedder
from evervec.embedders.vectors import width_of
from evervec.errors import BadInputError, ConfigError, TransientError

TEXTS: Final = 64
"""Texts of one request: enough to be run together, few enough that a stop waits for a second."""

LOADING: Final = Lock()
LOADED: Final[WeakValueDictionary[tuple[object, ...], "LoadedEncoder"]] = WeakValueDictionary()
"""The encoders of this process, each as long as an embedder holds it: a model takes 100 MB and more."""


@dataclass(eq=False)
class LoadedEncoder:
    """An encoder, what its space calls it, and what it puts before a question and before a document.

    `questions` is the encoder of questions, where the model computes them otherwise than documents.
    """

    encoder: Encoder
    model: str
    query_prefix: str = ""
    document_prefix: str = ""
    questions: Encoder | None = None

    def encode(self, texts: Sequence[str], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        """Return `(n, dim) float32` of documents, and their tokens. Raise what `Encoder.encode` raises."""
        return self.encoder.encode([self.document_prefix + text for text in texts], stopped)

    def encode_questions(self, texts: Sequence[str], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        """Return `(n, dim) float32` of questions, and their tokens. Raise what `Encoder.encode` raises."""
        return (self.questions or self.encoder).encode([self.query_prefix + text for text in texts], stopped)


Encode = Callable[[LoadedEncoder, Sequence[str], Callable[[], bool]], tuple[Vectors, int]]


class InProcessEmbedder(NamedEmbedder, ABC):
    """An embedder of this process; a subclass says how its model is opened.

    Documents have one thread and questions another, so that no question waits for a backfill. A model that is not fixed by
    the installation is called `<name>@<digest>`, and the digest is of all that its vectors depend on: one that was changed
    is refused. A text that is longer than a window is embedded in windows, whose vectors are added, weighted by their
    tokens.
    """

    def __init__(self, type_: str, model: str, options: EncoderOptions, name: str) -> None:
        super().__init__(name, model, EmbedLimits(texts=TEXTS, tokens=None))
        self._type, self._options = type_, options
        self._loaded: LoadedEncoder | None = None
        self._closed = Event()
        self._documents = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"evervec-{type_}")
        self._questions = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"evervec-{type_}-question")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count exactly, with the prefix of documents, in any thread. Raise what `embed` raises."""
        with self._provider_errors():
            loaded = self._load()
            return loaded.encoder.count([loaded.document_prefix + text for text in texts])

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, dim) float32` of length one. Raise `BadInputError` for a lone surrogate, `ConfigError` for a model."""
        return await self._in_thread(self._documents, LoadedEncoder.encode, texts)

    async def embed_query(self, text: str) -> Vectors:
        """Return `(1, dim) float32` of a question, with its prefix. Raise what `embed` raises."""
        return await self._in_thread(self._questions, LoadedEncoder.encode_questions, [text])

    async def probe(self) -> ModelProbe:
        """Load the model, and return its width and its window. Raise `ConfigError` for one that can not be run."""
        return ModelProbe(await width_of(self), self._limits.text_tokens)

    async def model_digest(self) -> str | None:
        """Return None: the digest is in the model's name, or its files are those of the installation."""
        return None

    async def aclose(self) -> None:
        """Stop what runs after its present step, and end the threads."""
        self._closed.set()
        for pool in (self._documents, self._questions):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        self._loaded = None

    @abstractmethod
    def _open(self) -> LoadedEncoder:
        """Load the model from this machine. Raise `ConfigError` for one that can not be run, `MissingExtraError`."""

    async def _in_thread(self, pool: ThreadPoolExecutor, encode: Encode, texts: Sequence[str]) -> Vectors:
        if self._closed.is_set():
            raise TransientError(self._name, "it was closed")
        left = Event()
        work = partial(self._work, encode, list(texts), lambda: left.is_set() or self._closed.is_set())
        try:
            vectors, tokens = await asyncio.get_running_loop().run_in_executor(pool, work)
        except StoppedError:
            raise TransientError(self._name, "it was closed while it worked") from None
        finally:
            left.set()
        usage.tell(tokens)
        return vectors

    def _work(self, encode: Encode, texts: Sequence[str], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        with self._provider_errors():
            return encode(self._load(), texts, stopped)

    def _load(self) -> LoadedEncoder:
        with LOADING:
            if self._loaded is None:
                found = LOADED.get((self._type, self._model, self._options))
                self._loaded = found if found is not None else self._open()
                LOADED[(self._type, self._loaded.model, self._options)] = self._loaded
                self._model = self._loaded.model
                self._limits = EmbedLimits(
                    texts=TEXTS, tokens=None, text_tokens=self._loaded.encoder.text_tokens, splits=True
                )
            return self._loaded

    @contextmanager
    def _provider_errors(self) -> Iterator[None]:
        try:
            yield
        except (TypeError, UnicodeEncodeError):
            raise BadInputError(self._name, "a text holds a lone surrogate, which is not Unicode") from None


def model_name(provider: str, model: str, digest: str, where: str) -> str:
    """Return `<name>@<digest>`. Raise `ConfigError` where the space was made with another digest."""
    name, _, wanted = model.partition("@")
    if wanted not in ("", digest):
        raise changed_model(provider, where, digest, wanted)
    return f"{name}@{digest}"


def changed_model(provider: str, where: str, digest: str, wanted: str) -> ConfigError:
    """Return the error of a model that is not the one that its space was made with."""
    return ConfigError(
        provider,
        f"the model in {where} is another one than its space was made with ({digest}, not {wanted}). Put it back, "
        "or add it under another name with `evervec providers add`.",
    )
