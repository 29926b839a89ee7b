"""HTML before it is parsed: what is no page (comments, scripts, styles) is cut out in one pass, however it is broken."""

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
    """The page without comments, declarations, scripts and styles.

    Python's parser looks for the end of each of them anew, so that one torn page of 1 MB may keep it for minutes. Here
    what never ends is looked for once: the mark of a comment goes, and a script goes on to the end.
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
    """What comes before something that is cut out must not open a tag with what comes behind it."""
    return f"{text[:-1]}&lt;" if text.endswith("<") else text


def _ended(html: str) -> str:
    """No tag opens behind the last `>`: a `<` there is only a sign."""
    end = html.rfind(">") + 1
    return html[:end] + html[end:].replace("<", "&lt;")
