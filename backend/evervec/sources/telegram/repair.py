"""Repairs the known defects of real exports in the bytes of a JSON file before they are parsed."""

import re
from typing import BinaryIO, Final

# Escapes are read from left to right, so that the second half of `\\` never begins one.
_ESCAPE: Final = re.compile(
    rb"""\\(?:
        u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}
        | (?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})
        | x(?P<control>[0-9a-fA-F]{2})
        | .
    )""",
    re.VERBOSE | re.DOTALL,
)
_SUSPECT_ESCAPE: Final = re.compile(rb"\\(?:x|u[dD][89a-fA-F])")
_BARE_DOCUMENT: Final = re.compile(rb'("document_id": )([^"\s][^"\n]*?)(,?\r?\n)')
_NOT_A_NUMBER: Final = re.compile(rb'("\w+":\s*)-?(?:NaN|Infinity)(?=\s*(?:[,}\]]|\Z))')
_RAW_CONTROLS: Final = bytes(code for code in range(32) if code not in b"\t\n\r")
_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_LINE: Final = 1 << 26


class RepairedBytes:
    """A file-like object for the parser: `read(n)` gives about `n` bytes of valid UTF-8, and b"" at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""
        self.position = 0
        """How many bytes of the file the parser has been given."""
        self.ended = False

    def read(self, size: int) -> bytes:
        """Return the next bytes, repaired. Raises OSError."""
        if size == 0:
            return b""
        while not self.ended:
            piece = self._next_piece(size)
            if piece:
                return repair(piece)
        return b""

    def _next_piece(self, size: int) -> bytes:
        """Return bytes up to a place where no character, escape or line is cut in two."""
        chunk = self._file.read(max(size, len(_BOM)))
        self.ended = not chunk
        data = self._rest + (chunk if self._file.tell() > len(chunk) else chunk.removeprefix(_BOM))
        cut = len(data) if self.ended or len(data) > _LONGEST_LINE else _safe_cut(data)
        self._rest = data[cut:]
        self.position = self._file.tell() - len(self._rest)
        return data[:cut]


def _safe_cut(data: bytes) -> int:
    """Return the end of the last line; where a file has no lines, of the last brace; 0 when there is neither."""
    return data.rfind(b"\n") + 1 or data.rfind(b"}") + 1


def repair(data: bytes) -> bytes:
    r"""Return the same JSON without the defects that stop a parser.

    Telegram Desktop writes control characters as `\x01`, which JSON does not know, and some of its versions wrote the
    `document_id` of custom emoji without quotes. Lone surrogates and bytes that are not UTF-8 become U+FFFD, raw
    control characters are removed, NaN and Infinity (Python's `json` writes them) become null.
    """
    data = data.translate(None, _RAW_CONTROLS)
    if not data.isascii():
        data = _valid_utf8(data)
    if _SUSPECT_ESCAPE.search(data):
        data = _ESCAPE.sub(_repair_escape, data)
    if b'"document_id": ' in data:
        data = _BARE_DOCUMENT.sub(rb'\1"\2"\3', data)
    if b"NaN" in data or b"Infinity" in data:
        data = _NOT_A_NUMBER.sub(rb"\1null", data)
    return data


def _valid_utf8(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="replace").encode()
    return data


def _repair_escape(match: re.Match[bytes]) -> bytes:
    if match["lone"]:
        return rb"\ufffd"
    if match["control"]:
        return rb"\u00" + match["control"]
    return match[0]
