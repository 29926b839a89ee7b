"""Sentences come out of wrapped, marked-up text whole and verbatim."""

import textwrap

from hypothesis import given
from hypothesis import strategies as st

from evervec.extractors.local.sentences import SentencePlace, collapse, sentences

word = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=10)
words = st.lists(st.one_of(word, word.map(str.title)), min_size=4, max_size=25)
statements = words.map(lambda parts: f"The {' '.join(parts)}ing.")


def texts(message: str) -> list[str]:
    return [sentence.text for sentence in sentences(message)]


@given(st.lists(statements, min_size=1, max_size=6), st.integers(62, 100))
def test_hard_wraps_are_undone(parts: list[str], width: int) -> None:
    wrapped = textwrap.fill(" ".join(parts), width, break_on_hyphens=False)
    assert texts(wrapped) == parts


@given(st.text(max_size=400))
def test_a_sentence_is_a_part_of_its_message(message: str) -> None:
    flat = collapse(message)
    for sentence in sentences(message):
        assert sentence.text in flat
        assert sentence.text


@given(st.lists(statements, min_size=1, max_size=5))
def test_every_item_of_a_list_stands_for_itself(parts: list[str]) -> None:
    found = sentences("\n".join(f"* {part}" for part in parts))
    assert [(one.text, one.place, one.position) for one in found] == [
        (part, SentencePlace.ITEM, at) for at, part in enumerate(parts)
    ]


def test_abbreviations_and_code_do_not_end_a_sentence() -> None:
    text = "Use a pool, e.g. PgBouncer, vs. Odyssey. Call `pool.close(). Then` twice. Done z. B. Heute."
    assert texts(text) == [
        "Use a pool, e.g. PgBouncer, vs. Odyssey.",
        "Call `pool.close(). Then` twice.",
        "Done z. B. Heute.",
    ]


def test_the_subject_of_a_commit_is_a_title() -> None:
    first, second = sentences("Fix the rescuer (#12)\n\nIt was slow.")
    assert (first.place, second.place) == (SentencePlace.TITLE, SentencePlace.PROSE)


def test_lines_that_were_ended_on_purpose_stay_apart() -> None:
    assert texts("Relay is back\nNothing was lost") == ["Relay is back", "Nothing was lost"]


def test_code_traces_quotes_and_trailers_are_left_out() -> None:
    text = """It fails.

```go
client.Start(ctx)
```

    indented := code()

> quoted words of somebody else

goroutine 1 [running]:
main.main()

Fixes #12, #13.
Co-authored-by: Somebody <a@example.com>
[1] https://example.com
[skip ci]
"""
    assert texts(text) == ["It fails."]


def test_who_writes_without_capitals_still_ends_sentences() -> None:
    assert texts("where do the photos go? drivers upload 30k a day. too much for a table.") == [
        "where do the photos go?",
        "drivers upload 30k a day.",
        "too much for a table.",
    ]
