"""Long texts in pieces: for the tokenizer, so that memory is needed for a few at a time, and for a model that takes no more."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

PIECE_CHARS = 32_768
GROUP_CHARS = 65_536


def encoded(tokenizer: Any, texts: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Yield row and encoding of every text, of a long one in several pieces, with memory for a few pieces at a time."""
    for rows, pieces in groups(texts):
        yield from zip(rows, tokenizer.encode_batch_fast(pieces, add_special_tokens=False), strict=True)


def split_at_words(text: str, size: int = PIECE_CHARS) -> list[str]:
    """Return `text` in pieces of at most `size` characters that tokenize exactly as the whole does.

    The tokenizer writes a space as the start of the next word and itself prepends one, so a cut in front of a space
    that swallows the space changes no token: none spans that place. A word longer than `size` is cut in two.
    """
    pieces, start = [], 0
    while len(text) - start > size:
        end = _cut_before(text, start, start + size)
        pieces.append(text[start:end])
        start = end + (text[end] == " ")
    return [*pieces, text[start:]]


def split_at_best(text: str, most: int, count: Callable[[str], int]) -> list[str]:
    """Return `text` in windows of at most `most` tokens, cut at lines, sentences or words; `count` counts a part's tokens."""
    from semchunk.semchunk import chunk as semchunk

    return cast(list[str], semchunk(text, most, count, memoize=False))


def _cut_before(text: str, start: int, limit: int) -> int:
    """Return the last place in `(start, limit)` where a sequence of spaces begins, else `limit`.

    Not inside the sequence, whose spaces share tokens; nor beside a bracket, which may belong to a special token as "<s>".
    """
    at = text.rfind(" ", start + 1, limit)
    while at > start and (text[at - 1] in " >" or text[at + 1] == "<"):
        at = text.rfind(" ", start + 1, at)
    return at if at > start else limit


def groups(texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    """Yield rows and pieces to tokenize at once: bounded by characters, because an encoding takes about 800 bytes a token."""
    rows: list[int] = []
    pieces: list[str] = []
    used = 0
    for row, text in enumerate(texts):
        for piece in [text] if len(text) <= PIECE_CHARS else split_at_words(text):
            if used + len(piece) > GROUP_CHARS and pieces:
                yield rows, pieces
                rows, pieces, used = [], [], 0
            rows.append(row)
            pieces.append(piece)
            used += len(piece)
    yield rows, pieces
