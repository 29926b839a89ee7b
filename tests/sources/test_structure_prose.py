"""Headings, titles and blocks of Markdown, reStructuredText and plain text."""

from itertools import pairwise

from evervec.domain.documents.document import Cut
from evervec.sources.structure import blocks, title


def seen(text: str, form: str) -> list[tuple[str, str, str]]:
    found = blocks(text, form)
    bounds = pairwise([0, *(block.end for block in found)])
    return [(block.cut.name, block.heading, text[a:b]) for block, (a, b) in zip(found, bounds, strict=True)]


def sections(text: str, form: str = "markdown") -> list[tuple[str, str]]:
    """Return headings and whole texts of the sections."""
    result = list[tuple[str, str]]()
    for cut, heading, part in seen(text, form):
        if cut == "SECTION":
            result.append((heading, part))
        else:
            result[-1] = (result[-1][0], result[-1][1] + part)
    return result


def test_a_heading_is_a_path_without_the_title() -> None:
    text = "# Guide\n\nHi.\n\n## Retrying\n\nA.\n\n### On *failure* of `x`\n\nB.\n\n## Next\nC.\n"
    assert title(text, "markdown") == "Guide"
    assert [heading for heading, _ in sections(text)] == ["", "Retrying", "Retrying › On failure of x", "Next"]


def test_a_heading_alone_is_part_of_the_next_section() -> None:
    text = "# Guide\n\n## Retrying\n\n### Why\n\nBecause.\n\n## End\n"
    assert seen(text, "markdown") == [
        ("SECTION", "Retrying › Why", "# Guide\n\n"),
        ("PART", "Retrying › Why", "## Retrying\n\n"),
        ("PART", "Retrying › Why", "### Why\n\nBecause.\n\n"),
        ("SECTION", "End", "## End\n"),
    ]


def test_setext_headings_count_and_those_in_fences_do_not() -> None:
    text = "Guide\n=====\n\nA.\n\n```sh\n# not this\n```\n\nSub\n---\n\nB.\n"
    assert title(text, "markdown") == "Guide"
    assert [heading for heading, _ in sections(text)] == ["", "Sub"]


def test_front_matter_has_a_block_and_gives_the_title() -> None:
    text = '---\ntitle: "A: b"\ntags: [x]\n---\n\n# Other\n\nText.\n'
    assert title(text, "markdown") == "A: b"
    assert sections(text) == [("", '---\ntitle: "A: b"\ntags: [x]\n---\n\n'), ("Other", "# Other\n\nText.\n")]


def test_broken_front_matter_still_has_its_title() -> None:
    assert title("---\ntitle: [a\n---\nText.\n", "markdown") == "[a"
    assert title("---\ntitle:\n---\n# Real\n", "markdown") == "Real"


def test_a_document_that_begins_below_level_one_has_no_title() -> None:
    text = "## A\n\nText.\n\n# B\n\nText.\n\n## C\n\nText.\n"
    assert title(text, "markdown") == ""
    assert [heading for heading, _ in sections(text)] == ["A", "B", "B › C"]


def test_items_of_a_list_are_blocks_and_a_fence_is_whole() -> None:
    text = "# T\n\nIntro:\n\n- one\n  more\n- two\n\n```py\na = 1\n\nb = 2\n```\n\n> quoted\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert [(cut, part) for cut, _, part in seen(text, "markdown")] == [
        ("SECTION", "# T\n\nIntro:\n\n"),
        ("PARAGRAPH", "- one\n  more\n"),
        ("LINE", "- two\n\n"),
        ("PARAGRAPH", "```py\na = 1\n\nb = 2\n```\n\n"),
        ("PARAGRAPH", "> quoted\n\n"),
        ("PARAGRAPH", "| a | b |\n|---|---|\n| 1 | 2 |\n"),
    ]


def test_a_large_fence_is_cut_at_blank_lines_and_only_weakly() -> None:
    code = "\n".join(f"value_{at} = compute({at})\n" * 3 for at in range(30))
    cuts = [cut for cut, _, _ in seen(f"# T\n\nIntro.\n\n```\n{code}```\n\nEnd.\n", "markdown")]
    assert cuts == ["SECTION", "PARAGRAPH", *["LINE"] * 29, "PARAGRAPH"]


def test_windows_line_ends_move_nothing() -> None:
    text = "# T\n\nA.\n\n## B\n\nC.\n\n- d\n- e\n"
    windows = text.replace("\n", "\r\n")
    assert [(c, h, p.replace("\r\n", "\n")) for c, h, p in seen(windows, "markdown")] == seen(text, "markdown")


def test_rst_titles_are_known_by_their_adornment() -> None:
    text = (
        "=====\nGuide\n=====\n\nHi.\n\n.. _retry:\n\nRetrying\n========\n\nA.\n\nOn ``failure``\n------------\nB.\n\n"
        ".. note::\n\n   Inside.\n\nEnd\n===\n\n* x\n\n----\n\nC.\n"
    )
    assert title(text, "rst") == "Guide"
    assert [heading for heading, _ in sections(text, "rst")] == ["", "Retrying", "Retrying › On failure", "End"]
    assert ".. _retry:\n\nRetrying" in sections(text, "rst")[1][1]
    assert ("LINE", "Retrying › On failure", "   Inside.\n\n") in seen(text, "rst")


def test_a_line_of_a_table_is_no_title() -> None:
    text = "A\n=\n\nText.\n\n=====  =====\nx      y\n=====  =====\n1      2\n=====  =====\n\nEnd.\n"
    assert [heading for heading, _ in sections(text, "rst")] == [""]


def test_plain_text_is_paragraphs_and_pages() -> None:
    assert seen("\n\nOne\ntwo.\n\n \nThree.\fFour.\n", "plain") == [
        ("SECTION", "", "\n\nOne\ntwo.\n\n \n"),
        ("PARAGRAPH", "", "Three.\f"),
        ("PART", "", "Four.\n"),
    ]


def test_a_long_line_is_sentences_in_any_script() -> None:
    text = "Сначала одно предложение, довольно длинное. " * 30 + "。".join(["これは文です" * 8] * 20)
    found = seen(text, "plain")
    assert {cut for cut, _, _ in found[1:]} == {"SENTENCE"}
    assert len(found) == 30 + 20


def test_in_a_long_paragraph_the_end_of_a_sentence_is_the_better_place() -> None:
    text = ("A line that was wrapped in the middle of its\nsentence, which ends here with a full stop.\n") * 20
    assert [block.cut for block in blocks(text, "plain")][1:4] == [Cut.SENTENCE, Cut.LINE, Cut.SENTENCE]


def test_other_formats_have_no_title() -> None:
    assert title("# A\n", "plain") == title("# A\n", "go") == title("# A\n", "nonsense") == ""
