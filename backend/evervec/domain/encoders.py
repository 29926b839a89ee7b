"""How a model is given its texts, and how a sentence encoder in a folder is run, as far as the owner says it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from evervec.errors import Refused

POOLINGS: Final = ("mean", "cls")
LONG_TEXTS: Final = ("windows", "refuse")
OF_A_FOLDER: Final = ("file", "pooling", "text_tokens")


@dataclass(frozen=True)
class EncoderOptions:
    """What is given for a model: None leaves it to the model, or to the files of its folder.

    `folder` holds the model as ONNX and its tokenizer.json, `file` is the model's name in it. `pooling` makes one vector of
    the vectors of tokens; `text_tokens` is the longest window, special tokens included. The prefixes are put before each
    question and each text, also of a model on a server. `task_types` tells the vendor which of the two a text is.
    `long_texts` says what becomes of a text that is longer than the model takes: it is embedded in `windows`, whose vectors
    make one, or it is refused.
    """

    folder: str | None = None
    file: str | None = None
    pooling: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    text_tokens: int | None = None
    task_types: bool | None = None
    long_texts: str | None = None

    def __post_init__(self) -> None:
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise Refused(reason=f"There is no pooling {self.pooling!r}. Choose one of {', '.join(POOLINGS)}.")
        if self.long_texts is not None and self.long_texts not in LONG_TEXTS:
            raise Refused(reason=f"Long texts are not {self.long_texts!r}. Choose one of {', '.join(LONG_TEXTS)}.")
        if self.text_tokens is not None and self.text_tokens < 8:
            raise Refused(reason=f"A window of {self.text_tokens} tokens is too short: give 8 or more.")
        if self.folder is not None and not Path(self.folder).is_absolute():
            raise Refused(reason=f"{self.folder!r} is not an absolute path: every process has to find the same folder.")
        alone = [name for name in OF_A_FOLDER if name in self.given()]
        if self.folder is None and alone:
            raise Refused(reason=f"{', '.join(alone)} can be set for a model in a folder alone: give --folder.")

    def given(self) -> dict[str, Any]:
        """Return what is given, as it is stored."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def refuses_long_texts(self) -> bool:
        """Return whether a text that is longer than the model takes is refused; else it is embedded in windows."""
        return self.long_texts == "refuse"

    @property
    def prefixed(self) -> bool:
        """Return whether a prefix is put before questions or texts."""
        return bool(self.query_prefix or self.document_prefix)
