"""What the encoders of this process share: their protocol, and the error of one that is not waited for."""

from collections.abc import Callable, Sequence
from typing import Protocol

from evervec.domain.protocols import Vectors


class Encoder(Protocol):
    """Turns texts into vectors of length one, without a network; any number of threads may use one."""

    @property
    def text_tokens(self) -> int | None:
        """Return the longest text that is embedded at once, None for any; a longer one is embedded in windows."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        ...

    def encode(self, texts: Sequence[str], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        """Return `(n, dim) float32`, and how many tokens the texts have. Raise `StoppedError` soon after `stopped` says so."""
        ...


class StoppedError(Exception):
    """Nobody waits for these vectors any more."""
