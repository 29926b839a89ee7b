"""Chunks: nothing lost, none too large, each in its place, and the same again after an edit elsewhere."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evervec.domain.documents.chunking import LEAST_TOKENS, ChunkDraft, Count, Recipe, chunk, gather
from evervec.domain.documents.document import Block, Cut, IncomingDocument
from evervec.domain.text import is_blank
from evervec.embedders.local.embedder import LocalEmbedder
from evervec.errors import Refused

local = LocalEmbedder().count_tokens


def words(texts: Sequence[str]) -> list[int]:
    """Count like a toy tokenizer: a token for four letters of a word, and one for a line's end."""
    return [sum(1 + len(word) // 4 for word in text.split()) + text.count("\n") for text in texts]


def characters(texts: Sequence[str]) -> list[int]:
    """Count like a toy tokenizer: a token a byte, the most there can be."""
    return [len(text.encode()) for text in texts]


SMALL = Recipe(template="{title}: {heading}\n{text}", tokens=LEAST_TOKENS)
TEXT = st.text(st.sampled_from("aaab  \n\n.é語😀א\t\r"), min_size=1, max_size=600)


@st.composite
def blocked(draw: st.DrawFn) -> tuple[IncomingDocument, list[Block]]:
    text = draw(TEXT)
    inner = st.sets(st.integers(1, max(1, len(text) - 1)), max_size=12)
    ends = sorted({end for end in draw(inner) if end < len(text)} | {len(text)})
    heading = st.sampled_from(["", "Guide", "A heading that is a good deal longer than a chunk of this size can have"])
    blocks = [Block(end, draw(heading), draw(st.sampled_from(Cut))) for end in ends]
    return IncomingDocument("u", draw(st.sampled_from(["", "Title"])), text, "plain"), blocks


def paragraphs(texts: Sequence[str]) -> tuple[IncomingDocument, list[Block]]:
    ends, end = [], 0
    for text in texts:
        end += len(text)
        ends.append(end)
    return IncomingDocument("u", "Title", "".join(texts), "plain"), [Block(end, "", Cut.PARAGRAPH) for end in ends]


def one_block(text: str) -> tuple[IncomingDocument, list[Block]]:
    return paragraphs([text])


WORDS = ["the", "retry", "of", "a", "job", "waits", "for", "its", "lease", "while", "nobody", "locks", "this", "table"]


def prose(count: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(8, 60))) + f" {number}.\n\n" for number in range(count)]


@pytest.mark.parametrize("count", [words, characters])
@given(given_=blocked())
@example(given_=one_block("a" + " " * 500 + "b"))
@example(given_=one_block(" \n" * 200))
@example(given_=one_block("😀" * 100))
def test_any_text_comes_out_whole_in_chunks_that_fit_and_know_their_place(
    count: Count, given_: tuple[IncomingDocument, list[Block]]
) -> None:
    document, blocks = given_
    chunks = chunk(document, blocks, SMALL, count)
    assert "".join(one.content for one in chunks) == document.text
    assert [one.ordinal for one in chunks] == list(range(len(chunks)))
    assert all(one.content for one in chunks)
    assert all(one.tokens == count([one.vector_text])[0] <= SMALL.tokens for one in chunks)
    assert all((one.vector_text == "") == is_blank(one.content) for one in chunks)
    assert chunks == chunk(document, blocks, SMALL, count)
    start = 0
    for one in chunks:
        before = document.text[:start].count("\n")
        assert one.line_start == 1 + before
        assert one.line_end == 1 + before + one.content[:-1].count("\n")
        assert one.heading == next(block.heading for block in blocks if block.end > start)
        start += len(one.content)


@given(blocked())
def test_a_section_always_begins_a_chunk(given_: tuple[IncomingDocument, list[Block]]) -> None:
    document, blocks = given_
    begins, at = set(), 0
    for one in chunk(document, blocks, SMALL, words):
        begins.add(at)
        at += len(one.content)
    assert {before.end for before, block in pairwise(blocks) if block.cut is Cut.SECTION} <= begins


@settings(max_examples=20, deadline=None)
@given(blocked())
def test_the_real_tokenizer_agrees_that_chunks_fit(given_: tuple[IncomingDocument, list[Block]]) -> None:
    document, blocks = given_
    assert all(one.tokens <= SMALL.tokens for one in chunk(document, blocks, SMALL, local))


def test_what_fits_stays_whole_and_a_cut_is_made_where_the_structure_is_best() -> None:
    texts = [f"paragraph {number} of the text.\n" for number in range(8)]
    document, blocks = paragraphs(texts)
    assert len(chunk(document, blocks, Recipe(), words)) == 1
    blocks[3] = Block(blocks[3].end, "", Cut.PART)
    first, second = chunk(document, blocks, Recipe(template="{text}", tokens=50), words)
    assert (first.content, second.content) == ("".join(texts[:3]), "".join(texts[3:]))


def test_an_empty_document_has_no_chunks_and_blocks_that_leave_text_out_are_refused() -> None:
    assert chunk(IncomingDocument("u", "t", "", "plain"), [], Recipe(), words) == []
    document, blocks = paragraphs(["one ", "two"])
    for wrong in ([], blocks[:1], blocks[::-1], [blocks[0], *blocks]):
        with pytest.raises(ValueError, match="do not cover"):
            chunk(document, wrong, Recipe(), words)


SIZES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=40)


@given(SIZES, st.integers(1, 120))
def test_neighbours_are_gathered_until_none_fit_together(pieces: list[tuple[int, int]], room: int) -> None:
    sizes, marks = [size for size, _ in pieces], [mark for _, mark in pieces]
    ranges = gather(sizes, marks, room)
    assert [index for first, end in ranges for index in range(first, end)] == list(range(len(sizes)))
    sums = [sum(sizes[first:end]) for first, end in ranges]
    assert all(total <= room for total, (first, end) in zip(sums, ranges, strict=True) if end - first > 1)
    assert all(left + right > room for left, right in pairwise(sums))


@pytest.mark.parametrize("order", [list(range(100_000)), list(range(100_000, 0, -1)), [0] * 100_000, [0, 1] * 50_000])
@pytest.mark.timeout(60)
def test_no_order_of_marks_makes_gathering_slow(order: list[int]) -> None:
    ranges = gather([1] * 100_000, order, 10)
    assert len(ranges) <= 20_000


def edited(texts: list[str], kind: str, at: int, draw: random.Random) -> list[str]:
    new = f"Nobody has written this before, {draw.random()}, about something else.\n\n"
    match kind:
        case "insert":
            return [*texts[:at], new, *texts[at:]]
        case "delete":
            return [*texts[:at], *texts[at + 1 :]]
        case _:
            return [*texts[:at], texts[at].removesuffix(".\n\n") + ", and more.\n\n", *texts[at + 1 :]]


def as_paragraphs(texts: list[str]) -> tuple[IncomingDocument, list[Block]]:
    return paragraphs(texts)


def as_one_block(texts: list[str]) -> tuple[IncomingDocument, list[Block]]:
    return one_block("".join(texts))


@pytest.mark.parametrize("shape", [as_paragraphs, as_one_block])
def test_an_edit_touches_the_chunks_that_it_is_in(
    shape: Callable[[list[str]], tuple[IncomingDocument, list[Block]]],
) -> None:
    draw, texts = random.Random(7), prose(500)
    before = {one.digest for one in chunk(*shape(texts), Recipe(), words)}
    assert len(before) > 80
    touched = []
    for number in range(150):
        kind = ("insert", "delete", "edit")[number % 3]
        after = chunk(*shape(edited(texts, kind, draw.randrange(len(texts)), draw)), Recipe(), words)
        touched.append(sum(one.digest not in before for one in after))
    assert mean(touched) <= 2
    assert sorted(touched)[int(len(touched) * 0.95)] <= 3
    assert max(touched) <= 6


def test_chunks_are_two_thirds_full_on_average() -> None:
    chunks = chunk(*paragraphs(prose(500)), Recipe(), words)
    assert mean(one.tokens for one in chunks) > 256 * 2 / 3


@pytest.mark.timeout(60)
def test_many_equal_paragraphs_are_shared_out_evenly_and_soon() -> None:
    document, blocks = paragraphs(["The same words stand in every paragraph of it.\n\n"] * 10_000)
    chunks = chunk(document, blocks, Recipe(), words)
    assert len({one.digest for one in chunks[:-1]}) == 1


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, "😀" * 200_000, "שלום world " * 20_000, "x" + "\n" * 1_000_000 + "y", " \t" * 500_000],
    ids=["a word", "emoji", "right to left", "empty lines", "blank"],
)
@pytest.mark.timeout(60)
def test_a_block_without_end_is_torn_in_time(text: str) -> None:
    document, blocks = one_block(text)
    chunks = chunk(document, blocks, Recipe(), local)
    assert "".join(one.content for one in chunks) == text
    assert max(one.tokens for one in chunks) <= 256
    full = [one.tokens for one in chunks[:-1] if one.vector_text]
    assert is_blank(chunks[0].content[1:]) or mean(full) > 128


def test_a_staircase_of_separators_does_not_exhaust_the_stack() -> None:
    text = "".join("word" + "\n" * number for number in range(1, 250))
    chunks = chunk(*one_block(text), SMALL, characters)
    assert "".join(one.content for one in chunks) == text


def test_a_block_is_torn_between_sentences_before_words() -> None:
    sentences = [f"Sentence {number} has a few words and then it ends." for number in range(40)]
    chunks = chunk(*one_block(" ".join(sentences)), Recipe(template="{text}", tokens=64), words)
    assert len(chunks) > 5
    assert all(one.vector_text.startswith("Sentence") and one.vector_text.endswith(".") for one in chunks)


def test_a_long_title_or_heading_is_shortened_and_the_text_is_not() -> None:
    text = "".join(prose(40))
    document = IncomingDocument("u", "title " * 5000, text, "plain")
    chunks = chunk(document, [Block(len(text), "heading " * 5000, Cut.SECTION)], Recipe(), local)
    assert "".join(one.content for one in chunks) == text
    for one in chunks:
        head = one.vector_text.removesuffix(one.content.strip())
        assert head.startswith("title title")
        assert "… › heading" in head
        assert local([head])[0] <= 80
    assert chunks[0].heading == "heading " * 5000


def test_a_chunk_whose_own_heading_leaves_less_room_holds_less() -> None:
    texts = [f"{letter * 10} " for letter in "abcdefghijklmnop"]
    document, blocks = paragraphs(texts)
    blocks = [Block(block.end, "" if block.end <= 11 else "head", Cut.PARAGRAPH) for block in blocks]
    chunks = chunk(document, blocks, Recipe(template="{heading}\n{text}", tokens=34), characters)
    assert all(one.tokens <= 34 for one in chunks)
    assert "".join(one.content for one in chunks) == document.text
    assert max(one.content.count(" ") for one in chunks if one.heading) == 2


def test_a_piece_that_does_not_fit_under_its_own_heading_is_torn() -> None:
    document, blocks = paragraphs(["a" * 30 + " ", "b" * 30 + " ", "c" * 30])
    blocks = [Block(block.end, "" if block.end <= 31 else "head", Cut.PARAGRAPH) for block in blocks]
    chunks = chunk(document, blocks, Recipe(template="{heading}\n{text}", tokens=32), characters)
    assert [one.tokens for one in chunks if one.heading] == [20, 20, 20, 20]
    assert "".join(one.content for one in chunks) == document.text


def said(template: str, title: str, heading: str) -> str:
    return Recipe(template=template).vector_text(title, heading, " text\n")


@pytest.mark.parametrize(
    ("template", "both", "title", "heading", "neither"),
    [
        ("{title} › {heading}\n\n{text}", "T › H\n\ntext", "T\n\ntext", "H\n\ntext", "text"),
        ("{text}", "text", "text", "text", "text"),
        ("{heading}: {text}", "H: text", "text", "H: text", "text"),
        ("passage: {title}\n{text}", "passage: T\ntext", "passage: T\ntext", "passage: text", "passage: text"),
        (
            "Section {heading} of {title}\n{text}\n--",
            "Section H of T\ntext\n--",
            "Section T\ntext\n--",
            "Section H\ntext\n--",
            "Section text\n--",
        ),
        ("{{{title}}} {text} }}{{", "{T} text }{", "{T} text }{", "{text }{", "{text }{"),
    ],
)
def test_no_mark_of_a_template_is_left_dangling(
    template: str, both: str, title: str, heading: str, neither: str
) -> None:
    assert said(template, "T", "H") == both
    assert said(template, "T", "") == title
    assert said(template, "", "H") == heading
    assert said(template, "", "") == neither


def test_what_looks_like_a_template_in_a_text_or_title_is_left_alone() -> None:
    assert Recipe().vector_text("{text}", "{0.x!r:>9}", "{{title}} {") == "{text} › {0.x!r:>9}\n\n{{title}} {"
    assert Recipe().vector_text("T", "H", " \n\u200b") == ""


@pytest.mark.parametrize(
    "template",
    ["", "no text", "{title}", "{text} {text}", "{text} {other}", "{text} {}", "{text} {0}", "{text.x}", "{text[0]}"],
)
def test_a_template_with_other_fields_is_refused_by_name(template: str) -> None:
    with pytest.raises(Refused, match=r"once and may have") as refused:
        Recipe(template=template)
    assert repr(template) in str(refused.value)


@pytest.mark.parametrize(
    "template", ["{text!r}", "{text:>9}", "{text:{title}}", "{text", "{text} }", "{text} {", "{{text}}"]
)
def test_a_template_that_computes_or_has_a_brace_too_many_is_refused_by_name(template: str) -> None:
    with pytest.raises(Refused) as refused:
        Recipe(template=template)
    assert repr(template) in str(refused.value)


def test_a_template_that_leaves_no_room_and_a_limit_that_is_too_low_are_refused() -> None:
    wordy = Recipe(template="word " * 60 + "{text}", tokens=64)
    with pytest.raises(Refused, match=r"leaves .* of 64 tokens"):
        chunk(*paragraphs(prose(20)), wordy, words)
    with pytest.raises(Refused, match="too few"):
        Recipe(tokens=LEAST_TOKENS - 1)


def test_two_documents_with_the_same_text_have_chunks_of_their_own_title() -> None:
    text = "".join(prose(20))
    first, second = (
        chunk(IncomingDocument("u", title, text, "plain"), [Block(len(text), "", Cut.SECTION)], Recipe(), words)
        for title in ("One", "Two")
    )
    assert [one.content for one in first] == [one.content for one in second]
    assert {one.digest for one in first}.isdisjoint(one.digest for one in second)


def test_lines_count_from_one_and_a_line_that_is_cut_belongs_to_both() -> None:
    texts = ["one\n", "two\n\n", "three " * 40]
    chunks: list[ChunkDraft] = chunk(*paragraphs(texts), Recipe(template="{text}", tokens=32), words)
    assert chunks[0].line_start == 1
    assert {(one.line_start, one.line_end) for one in chunks[1:]} == {(4, 4)}
