"""From a provider's record to its embedder and to its batch API; opens nothing by itself.

A vendor's library is imported where its client is opened: nobody waits for the others.
"""

from typing import Final

from evervec.domain.batch import BatchClient
from evervec.domain.protocols import Embedder
from evervec.embedders.local.embedder import MODEL as LOCAL_MODEL
from evervec.embedders.local.embedder import LocalEmbedder
from evervec.errors import ConfigError, NoBatchError

TYPES: Final = ("local", "ollama", "gemini", "openai")
BATCHED: Final = ("gemini", "openai")
"""Types with a batch API."""


def open_embedder(
    type: str,  # noqa: A002  # the word of the provider's record
    *,
    base_url: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    name: str,
    dimensions: int | None = None,
) -> Embedder:
    """The embedder of one provider record; `dimensions` are asked of the model, None takes its own width.

    Raises `ConfigError` for a record that can not work.
    """
    if dimensions is not None and type not in BATCHED:
        raise ConfigError(name, f"vectors of {type} are as wide as the model makes them: leave --dimensions out.")
    match type:
        case "local":
            if model not in (None, "", LOCAL_MODEL):
                raise ConfigError(name, f"the local embedder has one model, {LOCAL_MODEL!r}, not {model!r}.")
            return LocalEmbedder(name=name)
        case "ollama":
            from evervec.embedders.ollama.embedder import OllamaEmbedder
            from evervec.vendors.ollama.client import DEFAULT_URL

            chosen = _model(name, model, "nomic-embed-text")
            return OllamaEmbedder(base_url or DEFAULT_URL, chosen, api_key=api_key, name=name)
        case "gemini":
            from evervec.embedders.gemini.embedder import GeminiEmbedder

            chosen = _model(name, model, "gemini-embedding-001")
            return GeminiEmbedder(
                chosen, api_key=_key(name, api_key), base_url=base_url, name=name, dimensions=dimensions
            )
        case "openai":
            from evervec.embedders.openai.embedder import OpenAIEmbedder

            chosen = _model(name, model, "text-embedding-3-small")
            return OpenAIEmbedder(
                chosen, api_key=_key(name, api_key), base_url=base_url, name=name, dimensions=dimensions
            )
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
) -> BatchClient:
    """The batch API of one provider record; `chat_model` is what describes media.

    Raises `NoBatchError` for a type that has none, `ConfigError` for a record that can not work.
    """
    match type:
        case "gemini":
            from evervec.embedders.gemini.batch import GeminiBatchClient

            return GeminiBatchClient(
                model,
                api_key=_key(name, api_key),
                base_url=base_url,
                name=name,
                dimensions=dimensions,
                chat_model=chat_model,
            )
        case "openai":
            from evervec.embedders.openai.batch import OpenAIBatchClient

            return OpenAIBatchClient(
                model,
                api_key=_key(name, api_key),
                base_url=base_url,
                name=name,
                dimensions=dimensions,
                chat_model=chat_model,
            )
        case _:
            raise NoBatchError(provider=name, type=type, types=" or ".join(BATCHED))


def _model(name: str, model: str | None, example: str) -> str:
    if not model:
        raise ConfigError(name, f"give the model, for example `--model {example}`.")
    return model


def _key(name: str, api_key: str | None) -> str:
    if not api_key:
        raise ConfigError(name, "it needs an API key: set EVERVEC_PROVIDER_KEY and run `evervec providers add` again.")
    return api_key
