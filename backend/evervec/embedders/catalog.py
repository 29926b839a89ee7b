"""Which class is the embedder of a provider's record, and which its batch API; opens nothing by itself.

A vendor's library is imported where its client is opened: nobody waits for the others.
"""

from collections.abc import Sequence
from importlib.util import find_spec

from evervec.domain.batch import BatchClient
from evervec.domain.encoders import EncoderOptions
from evervec.domain.protocols import Embedder
from evervec.domain.vendors import (
    FASTEMBED,
    FOLDER_TYPES,
    FREE_TYPES,
    GEMINI,
    HUB_TYPES,
    LOCAL,
    OLLAMA,
    ONNX,
    OPENAI,
    SENTENCE_TRANSFORMERS,
    TASK_TYPES,
    TYPES,
    WIDTH_TYPES,
    Vendor,
    require_batch,
)
from evervec.embedders.fastembed.embedder import FastembedEmbedder
from evervec.embedders.local.embedder import LocalEmbedder
from evervec.embedders.onnx.embedder import OnnxEmbedder
from evervec.embedders.onnx.wheels import is_installed, require_packages
from evervec.embedders.prefixed import PrefixedEmbedder
from evervec.embedders.sentence_transformers.embedder import SentenceTransformersEmbedder
from evervec.errors import ConfigError
from evervec.extras import extra


def open_embedder(
    type: str,  # noqa: A002  # the word of the provider's record
    *,
    base_url: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    name: str,
    dimensions: int | None = None,
    encoder: EncoderOptions | None = None,
    refused_options: Sequence[str] = (),
    request_texts: int | None = None,
) -> Embedder:
    """Return the embedder of one provider record; `dimensions` are asked of the model, None takes its own width.

    `encoder` says how a model is given its texts, and how one in a folder is run. `refused_options` of a request are not sent, and `request_texts` is the
    most that the server takes in one. Only an OpenAI-compatible server of one's own needs no key.
    Raise `ConfigError` for a record that can not work.
    """
    options = encoder or EncoderOptions()
    _require_fitting(name, type, options)
    if dimensions is not None and type not in WIDTH_TYPES:
        raise ConfigError(name, f"vectors of {type} are as wide as the model makes them: leave --dimensions out.")
    match type:
        case LOCAL.type:
            if model not in (None, "", LOCAL.model):
                raise ConfigError(name, f"the local embedder has one model, {LOCAL.model!r}, not {model!r}.")
            return LocalEmbedder(name=name)
        case ONNX.type:
            with extra(ONNX.type, f"A provider of type {ONNX.type}"):
                require_packages(model or ONNX.model)
            return OnnxEmbedder(model, options=options, name=name)
        case FASTEMBED.type:
            _require_library(FASTEMBED, FastembedEmbedder.library)
            return FastembedEmbedder(model, options=options, name=name, hub_url=base_url)
        case SENTENCE_TRANSFORMERS.type:
            _require_library(SENTENCE_TRANSFORMERS, SentenceTransformersEmbedder.library)
            return SentenceTransformersEmbedder(model, options=options, name=name, hub_url=base_url)
        case OLLAMA.type:
            with extra(OLLAMA.type, f"A provider of type {OLLAMA.type}"):
                from evervec.embedders.ollama.embedder import OllamaEmbedder
                from evervec.vendors.ollama.client import OLLAMA_URL

            model = _model(name, model, OLLAMA)
            return _prefixed(OllamaEmbedder(base_url or OLLAMA_URL, model, api_key=api_key, name=name), options)
        case GEMINI.type:
            with extra(GEMINI.type, f"A provider of type {GEMINI.type}"):
                from evervec.embedders.gemini.embedder import GeminiEmbedder

            model, api_key = _model(name, model, GEMINI), _key(name, api_key)
            gemini = GeminiEmbedder(
                model,
                api_key=api_key,
                base_url=base_url,
                name=name,
                dimensions=dimensions,
                task_types=bool(options.task_types),
            )
            return _prefixed(gemini, options)
        case OPENAI.type:
            with extra(OPENAI.type, f"A provider of type {OPENAI.type}"):
                from evervec.embedders.openai.embedder import OpenAIEmbedder

            openai = OpenAIEmbedder(
                _model(name, model, OPENAI),
                api_key=_key(name, api_key) if base_url is None else api_key,
                base_url=base_url,
                name=name,
                dimensions=dimensions,
                refused_options=refused_options,
                request_texts=request_texts,
            )
            return _prefixed(openai, options)
        case _:
            raise ConfigError(name, f"{type!r} is not a type of embedder. Known types: {', '.join(TYPES)}.")


def open_batch_client(
    type: str,  # noqa: A002  # the word of the provider's record
    *,
    base_url: str | None = None,
    model: str,
    chat_model: str | None = None,
    api_key: str | None = None,
    name: str,
    dimensions: int | None = None,
    encoder: EncoderOptions | None = None,
) -> BatchClient:
    """Return the batch API of one provider record; `chat_model` is what describes media. `encoder` is that of the embedder.

    Raise `NoBatchError` for a type that has none, `ConfigError` for a record that can not work.
    """
    require_batch(name, type)
    key, options = _key(name, api_key), encoder or EncoderOptions()
    prefix = options.document_prefix or ""
    if type == GEMINI.type:
        from evervec.embedders.gemini.batch import GeminiBatchClient

        return GeminiBatchClient(
            model,
            api_key=key,
            base_url=base_url,
            name=name,
            dimensions=dimensions,
            chat_model=chat_model,
            document_prefix=prefix,
            task_types=bool(options.task_types),
        )
    with extra(OPENAI.type, f"A provider of type {OPENAI.type}"):
        from evervec.embedders.openai.batch import OpenAIBatchClient

    return OpenAIBatchClient(
        model,
        api_key=key,
        base_url=base_url,
        name=name,
        dimensions=dimensions,
        chat_model=chat_model,
        document_prefix=prefix,
    )


def _require_fitting(name: str, type_: str, options: EncoderOptions) -> None:
    """Raise `ConfigError` for options that providers of this type can not have."""
    if options.folder is not None and type_ not in FOLDER_TYPES:
        raise ConfigError(name, f"a folder can be given for providers of type {', '.join(FOLDER_TYPES)} alone.")
    if type_ == SENTENCE_TRANSFORMERS.type and (options.file is not None or options.pooling is not None):
        raise ConfigError(name, "the files of the folder say its file and its pooling: leave --file and --pooling out.")
    if options.prefixed and options.folder is None and type_ in FREE_TYPES and type_ not in HUB_TYPES:
        raise ConfigError(name, "the models that come with Evervec want no prefix: leave it out.")
    if options.task_types and type_ not in TASK_TYPES:
        raise ConfigError(name, f"--task-types is for providers of type {', '.join(TASK_TYPES)} alone.")


def _require_library(vendor: Vendor, library: str) -> None:
    """Raise `MissingExtraError` for a library that is not installed; it is imported in the thread that loads the model."""
    with extra(vendor.type, f"A provider of type {vendor.type}"):
        if find_spec(library) is None:
            raise ModuleNotFoundError(f"no package {library}", name=library)


def _prefixed(embedder: Embedder, options: EncoderOptions) -> Embedder:
    return PrefixedEmbedder(embedder, options) if options.prefixed else embedder


def _model(name: str, model: str | None, vendor: Vendor) -> str:
    if not model:
        raise ConfigError(name, f"give the model, for example `--model {vendor.model}`.")
    return model


def _key(name: str, api_key: str | None) -> str:
    if not api_key:
        raise ConfigError(name, "it needs an API key: set EVERVEC_PROVIDER_KEY and run `evervec providers add` again.")
    return api_key


def better_local_model(chosen: str) -> str | None:
    """Return the model of this machine that answers better than WordLlama, by `EVERVEC_LOCAL_MODEL`; None where there is none.

    `auto` takes what is installed, and asks no more of an installation than it has; nothing is loaded.
    """
    if chosen == "auto":
        return ONNX.model if is_installed(ONNX.model) else None
    return None if chosen == "wordllama" else chosen
