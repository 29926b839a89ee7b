"""How a sentence encoder in a folder is run, as far as its owner says it; the rest is read from the folder's own files."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from evervec.errors import Refused

POOLINGS: Final = ("mean", "cls")


@dataclass(frozen=True)
class EncoderOptions:
    """What is given for an encoder: None leaves it to the folder's files.

    `folder` holds the model as ONNX and its tokenizer.json, `file` is the model's name in it. `pooling` makes one vector of
    the vectors of tokens. The prefixes are put before each text; `text_tokens` is the longest window, special tokens included.
    """

    folder: str | None = None
    file: str | None = None
    pooling: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    text_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise Refused(reason=f"There is no pooling {self.pooling!r}. Choose one of {', '.join(POOLINGS)}.")
        if self.text_tokens is not None and self.text_tokens < 8:
            raise Refused(reason=f"A window of {self.text_tokens} tokens is too short: give 8 or more.")
        if self.folder is not None and not Path(self.folder).is_absolute():
            raise Refused(reason=f"{self.folder!r} is not an absolute path: every process has to find the same folder.")
        if self.folder is None and self.given():
            raise Refused(reason=f"{', '.join(self.given())} can be set for a model in a folder alone: give --folder.")

    def given(self) -> dict[str, Any]:
        """Return what is given, as it is stored."""
        return {name: value for name, value in asdict(self).items() if value is not None}
