"""From a refusal of an Ollama server to its `ProviderError`: Ollama's own words first, then the HTTP status."""

from evervec.errors import BadResponseError, ConfigError, ProviderError, QuotaExhaustedError, TransientError
from evervec.vendors.http import error_of_status


def refusal_error(
    provider: str, status: int, reason: str, retry_after: str | None, *, model: str, instead: str
) -> ProviderError:
    """Return the error for an answer outside 2xx; `instead` describes a model that fits, where `model` does not.

    Ollama answers 400 for whatever its runner did, so a 400 is the text's fault only when nothing says otherwise.
    """
    words = reason.lower()
    if "does not support" in words:
        return ConfigError(provider, f"{reason}. Choose {instead}.")
    if status == 404 and "model" in words:
        return ConfigError(provider, f"model {model!r} is not there. Fetch it with `ollama pull {model}`.")
    if status == 429 and "usage limit" in words:
        return QuotaExhaustedError(provider, f"HTTP {status}: {reason}")  # of the hour or the week, in Ollama's cloud
    if "nan or inf" in words or "unsupported value" in words or words.rstrip().endswith(("eof", "has terminated")):
        # Either this text ends the runner every time, or the machine did it once. BadResponseError lets the engine find
        # out: it isolates the text and asks again, instead of waiting for ever or giving up at once.
        return BadResponseError(provider, f"HTTP {status}: {reason}")
    if status == 400 and any(sign in words for sign in ("connection re", "forcibly closed", "context canceled")):
        return TransientError(provider, f"HTTP {status}: {reason}")
    return error_of_status(provider, status, reason, retry_after)
