"""What the files of a folder say of its sentence encoder, as sentence-transformers writes them.

https://sbert.net/docs/sentence_transformer/usage/custom_models.html names the files: modules.json, 1_Pooling/config.json,
config_sentence_transformers.json, sentence_bert_config.json; tokenizer_config.json and config.json are of transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from evervec.domain.encoders import EncoderOptions
from evervec.errors import ConfigError

MODEL_FILES: Final = ("model.onnx", "onnx/model.onnx")
TOKENIZER_FILE: Final = "tokenizer.json"
LONGEST_WINDOW: Final = 8192
USUAL_WINDOW: Final = 512
"""Tokens where no file tells: what BERT takes."""

_KNOWN_MODULES: Final = ("Transformer", "Pooling", "Normalize")
_POOLINGS: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class EncoderRecipe:
    """How an encoder is run: its files, and what is done before and after it."""

    model: Path
    tokenizer: Path
    pooling: str = "mean"
    text_tokens: int = USUAL_WINDOW
    query_prefix: str = ""
    document_prefix: str = ""

    def digest(self) -> str:
        """Return twelve hexadecimal digits that stand for all that a vector depends on."""
        weights = sorted(self.model.parent.glob(f"{self.model.stem}*data"))
        total = sha256()
        for path in (self.model, *weights, self.tokenizer):
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    total.update(piece)
        total.update(orjson.dumps([self.pooling, self.text_tokens, self.query_prefix, self.document_prefix]))
        return total.hexdigest()[:12]


def read(provider: str, options: EncoderOptions) -> EncoderRecipe:
    """Return the recipe of a folder; what the options give comes first. Raise `ConfigError` for one that can not be run."""
    folder = Path(options.folder or "")
    if not folder.is_dir():
        raise ConfigError(provider, f"there is no folder {str(folder)!r} on this machine.")
    prompts = _object(_config(provider, folder / "config_sentence_transformers.json").get("prompts"))
    found_query, found_document = _prompt(prompts, "query"), _prompt(prompts, "document", "passage")
    return EncoderRecipe(
        model=_model_file(provider, folder, options.file),
        tokenizer=_required(provider, folder / TOKENIZER_FILE),
        pooling=options.pooling or _pooling(provider, folder),
        text_tokens=options.text_tokens or _window(provider, folder),
        query_prefix=found_query if options.query_prefix is None else options.query_prefix,
        document_prefix=found_document if options.document_prefix is None else options.document_prefix,
    )


def _model_file(provider: str, folder: Path, given: str | None) -> Path:
    if given is not None:
        return _required(provider, folder / given)
    found = next((folder / name for name in MODEL_FILES if (folder / name).is_file()), None)
    if found is None:
        raise ConfigError(provider, f"{folder} has no {' and no '.join(MODEL_FILES)}: name the file with --file.")
    return found


def _required(provider: str, path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(provider, f"there is no file {path}.")
    return path


def _pooling(provider: str, folder: Path) -> str:
    """Return how the folder pools: the mean where it does not say. Raise `ConfigError` for what we do not do."""
    modules = _modules(provider, folder)
    strange = [kind for kind in modules if kind not in _KNOWN_MODULES]
    if strange:
        raise ConfigError(
            provider, f"modules.json names {', '.join(strange)}, which is not in the ONNX file of {folder}."
        )
    config = _config(provider, folder / modules.get("Pooling", "1_Pooling") / "config.json")
    said = [name for key, name in _POOLINGS.items() if config.get(key) is True]
    named = config.get("pooling_mode")
    said = [named] if isinstance(named, str) else said
    if not said:
        return "mean"
    if len(said) > 1 or said[0] not in ("mean", "cls"):
        raise ConfigError(provider, f"{folder} pools by {' and '.join(said)}. What can be run: mean, cls.")
    return said[0]


def _modules(provider: str, folder: Path) -> dict[str, str]:
    """Return the modules of modules.json, the last word of each type with its folder; none where there is no such file."""
    path = folder / "modules.json"
    listed = _document(provider, path) if path.is_file() else []
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {str(entry.get("type", "")).rpartition(".")[2]: str(entry.get("path", "")) for entry in entries}


def _window(provider: str, folder: Path) -> int:
    """Return the most tokens of one window, special ones included: the least number that a file names."""
    positions = _config(provider, folder / "config.json").get("max_position_embeddings")
    told = (
        _config(provider, folder / "sentence_bert_config.json").get("max_seq_length"),
        _config(provider, folder / "tokenizer_config.json").get("model_max_length"),
        positions - 2 if isinstance(positions, int) else None,  # the two that RoBERTa reserves; others lose nothing
    )
    numbers = [int(number) for number in told if isinstance(number, int | float) and 8 <= number <= LONGEST_WINDOW]
    return min(numbers, default=USUAL_WINDOW)


def _prompt(prompts: Mapping[str, Any], *names: str) -> str:
    return next((str(prompts[name]) for name in names if isinstance(prompts.get(name), str)), "")


def _config(provider: str, path: Path) -> Mapping[str, Any]:
    return _object(_document(provider, path)) if path.is_file() else {}


def _document(provider: str, path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as problem:
        raise ConfigError(provider, f"{path} can not be read as JSON: {problem}.") from None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
