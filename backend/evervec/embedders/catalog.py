"""From a provider's record to its embedder, and what that embedder turns out to be; opens nothing by itself.

A vendor's library is imported where its embedder is opened: nobody waits for the others.
"""

import numpy as np

from evervec.domain.protocols import Embedder
from evervec.embedders.local import MODEL as LOCAL_MODEL
from evervec.embedders.local import LocalEmbedder
from evervec.errors import ConfigError

TYPES = ("local", "ollama")


def open_embedder(
    type: str,  # noqa: A002  # the word of the provider's record
    *,
    base_url: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    name: str,
) -> Embedder:
    """The embedder of one provider record. Raises `ConfigError` for a record that can not work."""
    match type:
        case "local":
            if model not in (None, "", LOCAL_MODEL):
                raise ConfigError(name, f"the local embedder has one model, {LOCAL_MODEL!r}, not {model!r}.")
            return LocalEmbedder(name=name)
        case "ollama":
            if not model:
                raise ConfigError(name, "give the model, for example `--model nomic-embed-text`.")
            from evervec.embedders.ollama import DEFAULT_URL, OllamaEmbedder

            return OllamaEmbedder(base_url or DEFAULT_URL, model, api_key=api_key, name=name)
        case _:
            raise ConfigError(name, f"{type!r} is not a type of embedder. Known types: {', '.join(TYPES)}.")


async def probe(embedder: Embedder) -> int:
    """The width of the embedder's vectors, found by embedding and never assumed.

    Raises `ConfigError` when what comes back can not fill a space, else the `ProviderError` of the answer.
    """
    from evervec.embedders.ollama import OllamaEmbedder

    if isinstance(embedder, OllamaEmbedder):
        return (await embedder.probe()).dimensions
    vectors = await embedder.embed(["What is stored here?", "Two texts tell the width of a vector."])
    if vectors.ndim != 2 or len(vectors) != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
        raise ConfigError(
            embedder.name,
            f"model {embedder.model!r} gives no usable vectors. Choose another with `evervec providers add`.",
        )
    return int(vectors.shape[1])
