"""The lexicons, read from `languages/<language>.toml`, one file a language; what the cues mean is decided elsewhere."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from evervec.extractors.local.cues import Cue, Lexicon, parse_cue

_WEIGHTS = {"strong": 1.0, "weak": 0.5, "against": -1.0}


@cache
def lexicons() -> tuple[Lexicon, ...]:
    """Return every language that has a file, English first: the fallback for text that shows no language."""
    found = sorted(
        files(__package__).joinpath("languages").iterdir(), key=lambda file: (file.name != "en.toml", file.name)
    )
    read = [tomllib.loads(file.read_text(encoding="utf-8")) for file in found if file.name.endswith(".toml")]
    ordinary = frozenset().union(*(_words(data)[name] for data in read for name in ("function", "generic")))
    return tuple(_lexicon(data, ordinary) for data in read)


@cache
def technical_words() -> frozenset[str]:
    """Return the technical words of all languages together: chats mix them."""
    return frozenset().union(*(lexicon.technical_words for lexicon in lexicons()))


def _lexicon(data: dict[str, Any], ordinary: frozenset[str]) -> Lexicon:
    return Lexicon(data["language"], _cues(data["cues"]), _words(data) | {"ordinary": ordinary}, data["endings"])


def _words(data: dict[str, Any]) -> dict[str, frozenset[str]]:
    return {name: frozenset(" ".join(lines).casefold().split()) for name, lines in data["words"].items()}


def _cues(labels: dict[str, dict[str, Any]]) -> list[Cue]:
    return [
        parse_cue(label, _WEIGHTS[strength], line)
        for label, strengths in labels.items()
        for strength, lines in strengths.items()
        for line in lines
    ]
