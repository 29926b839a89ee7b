"""docs/settings.md is made from `Settings`, and no page names a setting that does not exist."""

import re
from pathlib import Path

import pytest

from evervec.settings import Settings
from scripts.settings_table import PAGE, page

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docker-compose.yml"]
OTHERS = {"EVERVEC_PROVIDER_KEY", "EVERVEC_PYTHON"}
"""Variables that are read elsewhere; the page names them below its table."""


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "run .venv/bin/python -m scripts.settings_table"


def test_each_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_names_a_setting_that_does_not_exist(path: Path) -> None:
    known = OTHERS | {f"EVERVEC_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"EVERVEC_[A-Z_]*[A-Z]", path.read_text())) - known - {"EVERVEC_NATS_TOKEN"} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_no_other_page_has_a_table_of_settings(path: Path) -> None:
    assert path == PAGE or not re.search(r"^\| `EVERVEC_", path.read_text(), re.MULTILINE)
