"""Which class is the extractor of a provider's record; opens nothing, and imports only the one that is asked for."""

from evervec.domain.protocols import Embedder, Extractor
from evervec.domain.vendors import EXTRACTOR_TYPES, LOCAL, OLLAMA
from evervec.errors import ConfigError
from evervec.extras import extra


def open_extractor(
    type: str,  # noqa: A002  # the word of the provider's record
    *,
    base_url: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    name: str,
    embedder: Embedder,
) -> Extractor:
    """Return the extractor of one provider record; the local one compares texts with `embedder`. Raise `ConfigError`."""
    match type:
        case LOCAL.type:
            from evervec.extractors.local.extractor import LocalExtractor

            return LocalExtractor(embedder)
        case OLLAMA.type:
            if not model:
                raise ConfigError(name, "give the model that extracts, for example `--model llama3.1`.")
            with extra(OLLAMA.type, f"A provider of type {OLLAMA.type}"):
                from evervec.extractors.ollama.extractor import OllamaExtractor
                from evervec.vendors.ollama.client import OLLAMA_URL

            return OllamaExtractor(base_url or OLLAMA_URL, model, api_key=api_key, name=name)
        case _:
            raise ConfigError(name, f"{type!r} is not a type of extractor. Known types: {', '.join(EXTRACTOR_TYPES)}.")
