"""What a provider says that a request took, handed from the client that reads the answer to whoever counts.

An answer is vectors, or knowledge; its price is beside it. So the one who counts opens `measured` around a call, and the
client that finds numbers in an answer calls `tell`: neither knows the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeGuard


@dataclass
class Usage:
    """Tokens of some requests as their provider counted them: `tokens` went in, `output_tokens` came out. None: it did not say.

    `answers` is how many requests were answered.
    """

    tokens: int | None = None
    output_tokens: int = 0
    answers: int = 0


_measured: ContextVar[Usage | None] = ContextVar("measured", default=None)


@contextmanager
def measured() -> Iterator[Usage]:
    """Give a `Usage` that everything called inside the block adds to, also in tasks that are started inside."""
    usage = Usage()
    token = _measured.set(usage)
    try:
        yield usage
    finally:
        _measured.reset(token)


def tell(tokens: object, output_tokens: object = None) -> None:
    """Add what an answer says about its tokens to the call that is measured; nothing where nobody measures.

    What is not a whole number is no count: the vectors beside it may be right all the same.
    """
    usage = _measured.get()
    if usage is None:
        return
    usage.answers += 1
    if _is_count(tokens):
        usage.tokens = (usage.tokens or 0) + tokens
    if _is_count(output_tokens):
        usage.output_tokens += output_tokens


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
