"""Cue patterns: what they match, and that every cue file is sound."""

import pytest

from evervec.domain.extraction.knowledge import AtomType
from evervec.extractors.local.cues import Lexicon, choose, parse_cue, tokens
from evervec.extractors.local.lexicons import lexicons


def lexicon(*lines: str) -> Lexicon:
    names = ("function", "ordinary", "technical", "broad")
    words = {name: frozenset[str]() for name in names} | {"openers": frozenset({"but", "also"})}
    return Lexicon("xx", [parse_cue("risk", 1.0, line) for line in lines], words, ["s", "ing"])


@pytest.mark.parametrize(
    ("line", "text", "found"),
    [
        ("it turn* out", "And it turned out well", True),
        ("it turn* out", "it did turn out", False),
        ("we decided|agreed to", "We agreed to wait", True),
        ("could .. fail", "it could very well just fail", True),
        ("could .. fail", "it could be that in the far end we fail", False),
        ("^ maybe", "Maybe later", True),
        ("^ maybe", "But, maybe later", True),
        ("^ maybe", "later, maybe", False),
        ("?", "is it?", True),
        ("must", "a call of `must` in code", False),
    ],
)
def test_a_pattern_matches_words_not_letters(line: str, text: str, found: bool) -> None:
    assert bool(lexicon(line).find(tokens(text))) is found


def test_code_addresses_and_tickets_are_one_token_each() -> None:
    assert tokens("See `a b c` at https://x.y/z for #12!") == ["see", "<code>", "at", "<url>", "for", "<ref>", "!"]


@pytest.mark.parametrize("language", [lexicon.language for lexicon in lexicons()])
def test_every_language_has_cues_for_every_type(language: str) -> None:
    [one] = [lexicon for lexicon in lexicons() if lexicon.language == language]
    assert {kind.value for kind in AtomType} <= one.labels
    assert one.function_words


def test_the_language_is_told_by_its_little_words() -> None:
    said = {
        "en": "we should not do that with the index",
        "de": "das sollten wir mit dem Index nicht machen",
        "ru": "это не надо делать с индексом",
        "es": "no deberíamos hacer eso con el índice",
    }
    assert {code: choose(lexicons(), tokens(text)).language for code, text in said.items()} == {c: c for c in said}


def test_two_forms_of_a_word_have_one_stem() -> None:
    assert lexicon("x").stem("Jobs") == lexicon("x").stem("job")
