"""Cleaning, blankness, snippets and token estimates, over any text at all."""

import re
import sys
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from evervec.domain.text import BLANK_PATTERN, clean, estimate_tokens, is_blank, snippet

ANY_CHARACTER = st.characters(codec=None, exclude_categories=())
ANY_TEXT = st.text(ANY_CHARACTER)
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    config = resources.files("wordllama") / "tokenizers" / "l2_supercat_tokenizer_config.json"
    return Tokenizer.from_str(config.read_text())


@given(ANY_TEXT)
def test_cleaned_text_can_be_stored_and_is_not_cleaned_twice(text: str) -> None:
    cleaned = clean(text)
    assert "\0" not in cleaned.encode("utf-8").decode("utf-8")
    assert clean(cleaned) == cleaned


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_good_text_is_left_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_lone_surrogates_are_replaced_one_by_one_and_pairs_become_their_character() -> None:
    assert clean("a\ud800b\udc00\udc00\0c") == "a\ufffdb\ufffd\ufffdc"
    assert clean("\ud83d\ude00!") == "😀!"
    assert clean("end\ud83d") == "end\ufffd"


def test_blank_is_what_python_calls_space_and_the_zero_width_characters_and_the_pattern_agrees() -> None:
    pattern = re.compile(BLANK_PATTERN)
    for character in map(chr, range(sys.maxunicode + 1)):
        expected = character.isspace() or character in ZERO_WIDTH
        assert is_blank(character) is expected, hex(ord(character))
        assert bool(pattern.fullmatch(character)) is expected, hex(ord(character))


@given(st.text(st.sampled_from(" \t\n\u00a0\u3000" + ZERO_WIDTH + "aß😀")))
def test_pattern_and_function_agree_on_whole_texts(text: str) -> None:
    assert bool(re.search(BLANK_PATTERN, text)) is is_blank(text)


def test_the_pattern_names_every_code_point_and_leaves_nothing_to_a_locale() -> None:
    assert re.fullmatch(r"\^\[(\\u[0-9A-F]{4}-\\u[0-9A-F]{4})+\]\*\$", BLANK_PATTERN)


@given(ANY_TEXT, st.integers(1, 80))
def test_a_snippet_fits_and_begins_like_the_text(text: str, width: int) -> None:
    line = " ".join(text.split())
    short = snippet(text, width)
    assert len(short) <= width
    assert short == line or (short.endswith("…") and line.startswith(short[:-1]))


def test_a_snippet_is_cut_between_words() -> None:
    assert snippet("the lease of  a dead\nworker expires", 20) == "the lease of a dead…"
    assert snippet("the lease of a dead worker", 18) == "the lease of a…"
    assert snippet("x" * 50, 10) == "x" * 9 + "…"


@given(ANY_TEXT, ANY_TEXT)
def test_longer_text_never_has_fewer_tokens(text: str, more: str) -> None:
    assert estimate_tokens(text + more) >= estimate_tokens(text) >= 2


@pytest.mark.parametrize(
    "text",
    [
        "The outbox relay fell behind after the failover, so 4,812 status updates waited for 11 minutes.",
        "SELECT id FROM parcels WHERE carrier_id = $1 AND delivered_at IS NULL ORDER BY id LIMIT 500;",
        "Wir sollten das Zustellfenster nicht im Client berechnen, sonst driftet es bei jeder Zeitumstellung.",
        "Очередь растёт, потому что потребитель подтверждает сообщение только после записи в базу.",
        "配送状況の更新が遅れています。原因を調査中です。",
        "a b c d e f g h 1 2 3",
        "👍🏽 🚚💨",
    ],
)
def test_the_estimate_is_not_below_a_real_tokenizer_nor_far_above(text: str, tokenizer: Tokenizer) -> None:
    real = len(tokenizer.encode(text).ids)
    assert real <= estimate_tokens(text) <= 4 * real + 8
