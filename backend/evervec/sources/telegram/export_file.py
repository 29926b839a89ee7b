"""Checks by the file system and the first bytes whether a path can be a Telegram export; no JSON here."""

import codecs
import errno
import stat
from pathlib import Path
from typing import Final

from evervec.errors import ExportError

_HOW_TO_EXPORT: Final = (
    "In Telegram Desktop choose Export chat history (or Export Telegram data), format Machine-readable JSON, "
    "and give the result.json it writes."
)
_ARCHIVES: Final = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!")
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOOK: Final = 4096


def check(path: Path) -> None:
    """Raise ExportError when the path is no readable file, or its first bytes are not those of a JSON object."""
    try:
        head = _head(path)
    except IsADirectoryError:
        raise refuse(path, "this is a folder. Give the result.json inside it.") from None
    except FileNotFoundError:
        raise refuse(path, "there is no such file. Give the path of the result.json of an export.") from None
    except OSError as error:
        detail = error.strerror or str(error)
        raise refuse(path, f"the file can not be read ({detail}). Make it readable for this user.") from error
    if defect := _defect(head):
        raise refuse(path, defect)


def refuse(path: Path, sentences: str) -> ExportError:
    """Return the error for a file of which nothing was imported."""
    return ExportError(path=path, reason=f"{sentences} Nothing was imported.")


def not_an_export(path: Path) -> ExportError:
    """Return the error for JSON without any list of messages."""
    return refuse(path, f"this is JSON, but there is no list of messages in it. {_HOW_TO_EXPORT}")


def without_messages(path: Path) -> ExportError:
    """Return the error for an export whose lists are all empty."""
    return refuse(path, "the export holds no messages. Export again with a chat and a time range that have some.")


def without_chat_id(path: Path) -> ExportError:
    """Return the error for a chat that can not be told from other chats."""
    return refuse(path, 'the chat has no "id", so a second import could not recognise its messages. Export it again.')


def broken(path: Path, *, taken: int, position: int, detail: str) -> ExportError:
    """Return the error for JSON that becomes invalid after `taken` messages."""
    what = f"the JSON is broken before byte {position:,} ({detail})"
    return _stopped(path, what, taken)


def cut_off(path: Path, *, taken: int, position: int) -> ExportError:
    """Return the error for JSON that ends in the middle, after `taken` messages."""
    return _stopped(path, f"the file is cut off at byte {position:,}", taken)


def _stopped(path: Path, what: str, taken: int) -> ExportError:
    if taken == 0:
        return refuse(path, f"{what}, before the first complete message. Export it again.")
    messages = "message" if taken == 1 else "messages"
    return ExportError(
        path=path,
        reason=f"{what}. The {taken:,} {messages} before that were read and are kept. Export it again and import the "
        "new file: importing twice changes nothing, so it goes on where this one stopped.",
    )


def _head(path: Path) -> bytes:
    if stat.S_ISFIFO(path.stat().st_mode):
        raise OSError(errno.ESPIPE, "a pipe can not be read twice")
    with path.open("rb") as file:
        return file.read(_LOOK)


def _defect(head: bytes) -> str | None:
    """Return what is wrong with the first bytes, or None when they may begin an export."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        return f"the file is empty. {_HOW_TO_EXPORT}"
    if head.startswith(_UTF16_MARKS) or 0 in head[:4]:
        return "the file is UTF-16 or UTF-32, exports are UTF-8. Convert it (iconv -f UTF-16 -t UTF-8) or export again."
    if head.startswith(_ARCHIVES):
        return "this is an archive. Unpack it and give the result.json inside it."
    if text.startswith(b"<"):
        return f"this is an HTML page, not JSON. {_HOW_TO_EXPORT}"
    if text[:1] not in b"{[":
        return f"this is not JSON. {_HOW_TO_EXPORT}"
    return None
