"""The architecture page and the glossary are about this house: every room and every table stands on the page."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "backend" / "evervec"
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def rooms() -> list[str]:
    """Every folder of the package that holds code, as the page writes it."""
    return sorted(
        f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE
    )


def tables() -> list[str]:
    """Every table that the migrations make."""
    sql = "".join(path.read_text() for path in sorted((ROOT / "alembic" / "versions").iterdir()) if path.is_file())
    return sorted({found[1] for found in re.finditer(r'(?:CREATE TABLE |create_table\(\s*")(\w+)', sql)})


def missing(words: list[str], page: str) -> list[str]:
    """Return the words that do not stand on a page in backticks."""
    return [word for word in words if f"`{word}`" not in page]


def test_every_room_stands_on_the_page() -> None:
    assert len(rooms()) > 30
    assert missing(rooms(), PAGE) == []


def test_every_table_stands_on_the_page() -> None:
    assert len(tables()) > 20
    assert missing(tables(), PAGE) == []


def test_the_page_names_no_room_that_is_gone() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)+)`", PAGE))
    there = {f"{path.relative_to(base)}/" for base in (PACKAGE, ROOT) for path in base.rglob("*") if path.is_dir()}
    assert named - there == set()


def test_every_path_of_the_page_exists() -> None:
    for path in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|toml|sql))`", PAGE):
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path


def test_a_missing_word_is_found() -> None:
    assert missing(["store/", "cellar/"], "the `store/` room") == ["cellar/"]
