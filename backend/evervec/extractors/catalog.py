"""Which class is the extractor of a provider's record; opens nothing, and imports only the one that is asked for."""

from evervec.domain.protocols import Embedder, Extractor
from evervec.domain.vendors import EXTRACTOR_TYPES, GEMINI, LOCAL, OLLAMA, OPENAI
from evervec.errors import ConfigError
from evervec.extractors.chat.extractor import ChatExtractor
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
            model = _model(name, model, "llama3.1")
            with extra(OLLAMA.type, f"A provider of type {OLLAMA.type}"):
                from evervec.extractors.ollama.chat import OllamaChat
                from evervec.vendors.ollama.client import OLLAMA_URL

            return ChatExtractor(OllamaChat(base_url or OLLAMA_URL, model, provider=name, api_key=api_key))
        case GEMINI.type:
            model = _model(name, model, "gemini-2.5-flash")
            from evervec.extractors.gemini.chat import GeminiChat

            return ChatExtractor(GeminiChat(model, provider=name, api_key=_key(name, api_key), base_url=base_url))
        case OPENAI.type:
            model = _model(name, model, "gpt-5-mini")
            key = api_key if base_url else _key(name, api_key)
            with extra(OPENAI.type, f"A provider of type {OPENAI.type}"):
                from evervec.extractors.openai.chat import OpenAIChat

            return ChatExtractor(OpenAIChat(model, provider=name, api_key=key, base_url=base_url))
        case _:
            raise ConfigError(name, f"{type!r} is not a type of extractor. Known types: {', '.join(EXTRACTOR_TYPES)}.")


def _model(name: str, model: str | None, example: str) -> str:
    if not model:
        raise ConfigError(name, f"give the model that extracts, for example `--chat-model {example}`.")
    return model


def _key(name: str, api_key: str | None) -> str:
    if not api_key:
        raise ConfigError(name, "it needs an API key: set EVERVEC_PROVIDER_KEY and run `evervec providers add` again.")
    return api_key
