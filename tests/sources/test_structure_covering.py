"""Blocks cover any text in any format, quickly, and an edit moves only what is near it."""

import random
import sysconfig
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evervec.domain.documents.document import Block, Cut
from evervec.sources.structure import blocks, title
from evervec.sources.structure.grammars import GRAMMARS

FORMATS = ["plain", "markdown", "rst", *GRAMMARS, "unknown"]
LIBRARY = Path(sysconfig.get_path("stdlib"))
marked = st.text(st.sampled_from("ab Z\n\n\t\r\f#=-*`>|:.!\"'(){}[];@/\\<$\0\ud800éש😀"), max_size=300)


def cover(text: str, form: str) -> list[Block]:
    found = blocks(text, form)
    assert [block.end for block in found[-1:]] == ([len(text)] if text else [])
    assert all(first.end < second.end for first, second in pairwise(found))
    assert not found or (found[0].end > 0 and found[0].cut is Cut.SECTION)
    assert all(first.heading == second.heading or second.cut is Cut.SECTION for first, second in pairwise(found))
    assert "\n" not in title(text, form)
    return found


def texts(text: str, form: str) -> list[str]:
    ends = [block.end for block in blocks(text, form)]
    return [text[start:end] for start, end in pairwise([0, *ends])]


@pytest.mark.parametrize("form", FORMATS)
@given(text=st.one_of(st.text(max_size=200), marked))
@settings(max_examples=60, deadline=None)
def test_any_text_is_covered(form: str, text: str) -> None:
    cover(text, form)


@pytest.mark.parametrize("form", FORMATS)
def test_mutated_files_are_covered(form: str) -> None:
    chance = random.Random(form)
    source = (LIBRARY / "textwrap.py").read_text() + Path(__file__).read_text()
    for _ in range(10):
        start, end = sorted(chance.choices(range(len(source)), k=2))
        at = chance.randrange(start, end + 1)
        cover(
            source[start:at] + chance.choice(['"""', "{", "}", "\n# É\n", "```\n", "😀", "=====\n"]) + source[at:end],
            form,
        )


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "".join(f"class A{at} {{ int x{at};\n" for at in range(4_000)),
        "".join(f"{' ' * at}class A{at}:\n" for at in range(1_000)),
        "".join(f"{'>' * at} a{at}\n" for at in range(250)),
        "".join(f"f{at}(" for at in range(10_000)),
        "a=>" * 5_000,
        "<a " * 10_000,
        "x" * 1_000_000,
        "😀" * 100_000,
        "- " * 5_000,
        " " * 100_000 + "x",
        "\n" * 100_000,
    ],
    ids=lambda text: repr(text[:8]),
)
@pytest.mark.timeout(60)
def test_hostile_text_neither_breaks_nor_stops_it(form: str, text: str) -> None:
    cover(text, form)


@pytest.mark.timeout(60)
def test_five_megabytes_of_lines_take_no_time() -> None:
    text = "".join(f"12:00:{at % 60:02} INFO request {at} was served in {at % 97} ms\n" for at in range(100_000))
    found = cover(text, "plain")
    assert len(found) == 100_000


def test_a_million_numbers_are_not_a_million_blocks() -> None:
    found = cover("".join(f"{number}\n" for number in range(100_000)), "plain")
    assert 100 < len(found) < 20_000


def test_a_node_without_length_at_the_end_begins_no_block() -> None:
    assert texts("0\\\r", "bash") == ["0\\\r"]


def test_an_inserted_paragraph_leaves_all_other_blocks_alone() -> None:
    source = "# T\n\n" + "".join(f"## H {at}\n\nFirst {at}.\n\nSecond {at}.\n\n" for at in range(50))
    edited = source.replace("Second 25.", "New.\n\nSecond 25.")
    assert set(texts(edited, "markdown")) - set(texts(source, "markdown")) == {"New.\n\n"}


def test_a_line_inserted_between_short_lines_moves_only_its_neighbours() -> None:
    lines = [f"{number * 7919 % 10_007}\n" for number in range(2_000)]
    edited = [*lines[:10], "new\n", *lines[10:]]
    assert len(set(texts("".join(edited), "plain")) - set(texts("".join(lines), "plain"))) <= 3


def test_offsets_are_characters_and_not_bytes() -> None:
    source = '"""Ünï😀"""\n\n\ndef é():\n    return "😀"\n\n\ndef b():\n    return 1\n'
    assert texts(source, "python") == [
        '"""Ünï😀"""\n\n\n',
        'def é():\n    return "😀"\n\n\n',
        "def b():\n    return 1\n",
    ]


def test_the_standard_library_is_covered() -> None:
    for path in sorted(LIBRARY.glob("asyncio/*.py")):
        found = cover(path.read_text(), "python")
        assert len(found) > 1 or path.stat().st_size < 1_000
