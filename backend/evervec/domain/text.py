"""The first steps with any text: cleaning, blankness, snippets and token estimates; no chunking here."""

import re
import string
from typing import Final

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

# What `str.isspace` knows (Unicode White_Space and the separators U+001C..U+001F), and the zero-width characters.
_BLANK_RANGES: Final = (
    (0x0009, 0x000D),
    (0x001C, 0x0020),
    (0x0085, 0x0085),
    (0x00A0, 0x00A0),
    (0x1680, 0x1680),
    (0x2000, 0x200D),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x2060),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
)

BLANK_CHARACTERS: Final = "".join(chr(code) for first, last in _BLANK_RANGES for code in range(first, last + 1))
"""Every invisible character; a text made of these alone is blank."""

# Code points are listed one by one, so that the result does not depend on the database's locale.
BLANK_PATTERN: Final = "^[" + "".join(rf"\u{first:04X}-\u{last:04X}" for first, last in _BLANK_RANGES) + "]*$"
r"""`text ~ BLANK_PATTERN` in PostgreSQL (an ARE, database encoding UTF8) holds exactly when `is_blank(text)` does."""

_LETTERS: Final = string.ascii_letters.encode()
_NOT_LETTERS: Final = bytes(set(range(256)) - set(_LETTERS))
_LEAD_OF_FOUR: Final = bytes(range(0xF0, 0xF5))
_NOT_MARKS: Final = _LETTERS + string.whitespace.encode() + bytes(range(128, 256))


def clean(text: str) -> str:
    """Return the nearest text that PostgreSQL can store: NUL removed, lone surrogates turned into U+FFFD.

    Two surrogates that make a pair become the character they stand for.
    """
    if "\0" in text:
        text = text.replace("\0", "")
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def is_blank(text: str) -> bool:
    """Return whether there is nothing to embed: only white space and zero-width characters, or nothing at all."""
    return not text.strip(BLANK_CHARACTERS)


def snippet(text: str, width: int) -> str:
    """Return the text on one line of at most `width` >= 1 characters, cut at a word where that loses less than a third."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    head = line[: width - 1]
    if line[width - 1] != " ":
        word_end = head.rfind(" ")
        head = head[:word_end] if word_end * 3 > width * 2 else head
    return head.rstrip() + "…"


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text, on the high side for the usual tokenizers, without any of them.

    A token for two letters of an ASCII word, for a digit, a mark, a letter of two bytes; two for a character of three
    bytes, four for one of four (emoji are split into bytes); two for the begin and the end.
    """
    data = text.encode("utf-8", "replace")
    letters = len(data.translate(None, _NOT_LETTERS))
    marks = len(data.translate(None, _NOT_MARKS))
    wide = 2 * len(data) - len(text) - len(data.translate(None, _LEAD_OF_FOUR))
    words = len(text.split())
    return 2 + (letters + words + marks + 1) // 2 + marks + wide
