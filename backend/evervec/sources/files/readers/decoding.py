"""Decodes bytes to text: UTF-8 first, then the charset that the file declares, then the most probable one.

A charset is only guessed from lines with bytes outside ASCII, and only used when the whole file decodes with it.
"""

import codecs
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final

from bs4.dammit import EncodingDetector
from charset_normalizer import from_bytes
from charset_normalizer.constant import IANA_SUPPORTED

from evervec.sources.files.readers.unreadable import Unreadable

# UTF-32 before UTF-16: the byte order mark of one begins like that of the other.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# The charsets in which files were really written; with these alone the detector is five times faster and errs less often.
_CANDIDATES: Final = (
    "gb18030 big5 cp932 euc_jp cp949 cp1252 cp1251 koi8_r cp866 cp1250 iso8859_2 cp1253 cp1254 cp1255 cp1256 iso8859_5 "
    "mac_cyrillic mac_roman cp850"
)

# The charsets a file may declare. Codecs such as punycode may take hours; UTF-16 can not be declared in ASCII.
_KNOWN: Final = {
    codecs.lookup(name).name for name in IANA_SUPPORTED if not name.startswith(("utf_7", "utf_16", "utf_32"))
}

_HEAD: Final = 8192
_SAMPLE: Final = 65_536
_CONTROLS: Final = bytes({*range(32), 127} - set(b"\a\b\t\n\v\f\r\x1b"))
_CONTROL_SHARE: Final = 50
_FEW: Final = 16
_RUN_OUTSIDE_ASCII: Final = re.compile(rb"[\x80-\xff]{2}")
_BROKEN_SHARE: Final = 20


def decode(data: bytes, format_: str = "") -> str:
    """Return the text of a file, complete, without its byte order mark; line breaks as they are.

    Python's coding cookie and a charset that HTML declares are followed. Raises `Unreadable`: `binary`, `not text`.
    """
    mark = next((name for bom, name in _MARKS if data.startswith(bom)), None) or _silent_utf16(data[:_HEAD])
    if mark:
        return _wide(data, mark)
    data = data.removeprefix(codecs.BOM_UTF8)
    _refuse_binary(data[:_HEAD])
    if format_ == "python" and (declared := _cookie(data)) and (text := _tried(data, declared)) is not None:
        return text
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return _mostly_utf8(data, error.start) or _legacy(data, format_)


def _refuse_binary(head: bytes) -> None:
    if b"\0" in head:
        raise Unreadable("binary", f"there is a NUL at byte {head.index(0):,}")
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls * _CONTROL_SHARE > len(head):
        raise Unreadable("binary", f"{controls:,} of its first {len(head):,} bytes are control characters")


def _silent_utf16(head: bytes) -> str | None:
    """Detect UTF-16 without a mark: every second byte is often zero, and the other half of the pairs never."""
    odd, even = head[1::2].count(0), head[0::2].count(0)
    if odd * 10 > len(head) // 2 and not even:
        return "utf-16-le"
    if even * 10 > len(head) // 2 and not odd:
        return "utf-16-be"
    return None


def _wide(data: bytes, charset: str) -> str:
    """Return the text of a file in UTF-16 or UTF-32."""
    try:
        text = data.decode(charset)
    except UnicodeDecodeError as error:
        raise Unreadable("not text", f"it begins as {charset.upper()}, but byte {error.start:,} is invalid") from None
    _refuse_binary(text[:_HEAD].encode())
    return text


def _tried(data: bytes, charset: str) -> str | None:
    """Return the text, if the charset is one of text files and the whole file decodes with it."""
    try:
        return data.decode(charset) if codecs.lookup(charset).name in _KNOWN else None
    except (LookupError, ValueError):
        return None


def _cookie(data: bytes) -> str | None:
    """Return the charset that Python source declares (PEP 263), if it is not UTF-8."""
    try:
        charset, _ = tokenize.detect_encoding(io.BytesIO(data[:_HEAD]).readline)
    except SyntaxError:
        return None
    return None if charset.startswith("utf-8") else charset


def _mostly_utf8(data: bytes, first_broken: int) -> str | None:
    """Return a text of UTF-8 with a few invalid bytes, or with its last character cut, with U+FFFD in their place."""
    text = data.decode(errors="replace")
    broken = text.count("\ufffd")
    whole = len(text) - len(text.encode("ascii", "ignore")) - broken
    few = broken * _BROKEN_SHARE <= whole or (whole and first_broken >= len(data) - 3)
    return text if few else None


def _legacy(data: bytes, format_: str) -> str:
    for charset in _charsets(data, format_):
        if (text := _tried(data, charset)) is not None:
            return text
    raise Unreadable("not text", "its encoding is unknown: save it as UTF-8")


def _charsets(data: bytes, format_: str) -> Iterator[str]:
    """Yield the charsets to try, in order, for bytes that are not UTF-8."""
    if format_ == "html" and (declared := EncodingDetector.find_declared_encoding(data, is_html=True)):
        yield declared
    sample = _sample(data)
    high = len(sample) - len(sample.decode("ascii", "ignore"))
    if high < _FEW and not _RUN_OUTSIDE_ASCII.search(sample):
        # a © or a name with é: too little for a detector; scripts other than Latin have runs of such bytes
        yield "cp1252"
    yield from (match.encoding for match in from_bytes(sample, cp_isolation=_CANDIDATES.split(), enable_fallback=False))


def _sample(data: bytes) -> bytes:
    """Return the lines with bytes outside ASCII, 64 KB at most."""
    lines: list[bytes] = []
    size = 0
    for line in io.BytesIO(data):
        if not line.isascii():
            lines.append(line)
            size += len(line)
        if size > _SAMPLE:
            break
    sample = b"".join(lines)
    return sample if size <= _SAMPLE else sample[: sample.rfind(b"\n", 0, _SAMPLE) + 1 or _SAMPLE]
