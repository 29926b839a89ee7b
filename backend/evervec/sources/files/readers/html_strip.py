"""Removes comments, declarations, scripts and styles from HTML before it is parsed, in one pass."""

import re
from typing import Final

_OPENING: Final = re.compile(r"<(?:(!--)|[!?]|(script|style)\b)", re.IGNORECASE)
_COMMENT_END: Final = re.compile("-->")
_DECLARATION_END: Final = re.compile(">")
_CODE_END: Final = {
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
}


def strip_raw_parts(html: str) -> str:
    """Return the page without comments, declarations, scripts and styles.

    Python's parser searches the end of each of them again, so that one broken page of 1 MB may keep it for minutes.
    Here an end that does not exist is searched once: then the mark of a comment is removed, and a script goes on to the
    end of the page.
    """
    kept: list[str] = []
    endless: set[re.Pattern[str]] = set()
    position = 0
    while opening := _OPENING.search(html, position):
        kept.append(_not_opening(html[position : opening.start()]))
        code = (opening[2] or "").lower()
        end = _CODE_END[code] if code else _COMMENT_END if opening[1] else _DECLARATION_END
        closing = None if end in endless else end.search(html, opening.end())
        if closing is None:
            endless.add(end)
        position = closing.end() if closing else len(html) if code else opening.end()
    kept.append(html[position:])
    return _ended("".join(kept))


def _not_opening(text: str) -> str:
    """Escape a final `<`: it must not open a tag with the text after the removed part."""
    return f"{text[:-1]}&lt;" if text.endswith("<") else text


def _ended(html: str) -> str:
    """Escape every `<` behind the last `>`: no tag opens there."""
    end = html.rfind(">") + 1
    return html[:end] + html[end:].replace("<", "&lt;")
