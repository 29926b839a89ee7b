"""What each vendor can do, one record a vendor: constraints, catalogs, prices and the command line derive from these."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from evervec.errors import NoBatchError


@dataclass(frozen=True)
class Vendor:
    """A service, or a library in this process, that embeds. `type` is its word in a provider's record.

    `model` is an example of a model that embeds (of "local" the only one). `batch`: it has a batch API. `extracts`: its chat models (or rules)
    score and extract. `describes_media`: its chat models describe pictures and sounds in batch jobs. `several_widths`:
    some of its models can be asked for narrower vectors. `needs_key`: it answers nobody without an API key. `compatible`: other servers speak its API, and some of those need none. `free`: it runs in this process, where no token costs anything.
    `price_list`: what the price list `genai-prices` calls it. `task_types`: it can be told whether a text is a question.
    `folders`: it runs the model of a folder. `hub`: it runs a model by its name on the Hugging Face hub.
    """

    type: str
    model: str
    needs_key: bool = False
    compatible: bool = False
    free: bool = False
    several_widths: bool = False
    batch: bool = False
    extracts: bool = False
    describes_media: bool = False
    price_list: str | None = None
    task_types: bool = False
    folders: bool = False
    hub: bool = False


LOCAL: Final = Vendor("local", "wordllama-l2-supercat-256", free=True, extracts=True)
ONNX: Final = Vendor("onnx", "minilm", free=True, folders=True)
FASTEMBED: Final = Vendor("fastembed", "BAAI/bge-small-en-v1.5", free=True, folders=True, hub=True)
SENTENCE_TRANSFORMERS: Final = Vendor(
    "sentence-transformers", "intfloat/e5-small-v2", free=True, folders=True, hub=True
)
OLLAMA: Final = Vendor("ollama", "nomic-embed-text", extracts=True)
GEMINI: Final = Vendor(
    "gemini",
    "gemini-embedding-001",
    needs_key=True,
    several_widths=True,
    batch=True,
    extracts=True,
    describes_media=True,
    price_list="google",
    task_types=True,
)
OPENAI: Final = Vendor(
    "openai",
    "text-embedding-3-small",
    needs_key=True,
    compatible=True,
    several_widths=True,
    batch=True,
    extracts=True,
    describes_media=True,
    price_list="openai",
)

VENDORS: Final = (LOCAL, ONNX, FASTEMBED, SENTENCE_TRANSFORMERS, OLLAMA, GEMINI, OPENAI)
BY_TYPE: Final = {vendor.type: vendor for vendor in VENDORS}
TYPES: Final = tuple(BY_TYPE)


def types_that(can: Callable[[Vendor], bool]) -> tuple[str, ...]:
    """Return the types of the vendors that can do something."""
    return tuple(vendor.type for vendor in VENDORS if can(vendor))


BATCH_TYPES: Final = types_that(lambda vendor: vendor.batch)
API_KEY_TYPES: Final = types_that(lambda vendor: vendor.needs_key)
KEYLESS_TYPES: Final = types_that(lambda vendor: vendor.compatible)
WIDTH_TYPES: Final = types_that(lambda vendor: vendor.several_widths)
FREE_TYPES: Final = types_that(lambda vendor: vendor.free)
EXTRACTOR_TYPES: Final = types_that(lambda vendor: vendor.extracts)
TASK_TYPES: Final = types_that(lambda vendor: vendor.task_types)
FOLDER_TYPES: Final = types_that(lambda vendor: vendor.folders)
HUB_TYPES: Final = types_that(lambda vendor: vendor.hub)
MEDIA_TYPES: Final = types_that(lambda vendor: vendor.describes_media)


def require_batch(provider: str, type_: str) -> None:
    """Raise `NoBatchError` unless providers of this type have a batch API."""
    if type_ not in BATCH_TYPES:
        raise NoBatchError(provider=provider, type=type_, types=" or ".join(BATCH_TYPES))
