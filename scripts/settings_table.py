"""Writes the table of docs/settings.md from the fields of `Settings`: .venv/bin/python -m scripts.settings_table"""

from pathlib import Path

from pydantic.fields import FieldInfo

from evervec.settings import Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
BEGIN, END = "<!-- begin: scripts/settings_table.py -->\n", "<!-- end -->\n"


def table() -> str:
    """Return one row a setting: its variable, its default, what it means."""
    rows = [f"| `EVERVEC_{name.upper()}` | {_default(field)} | {field.description} |" for name, field in _fields()]
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows, ""])


def page(text: str) -> str:
    """Return a page with the present table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{mark}{after}"


def _fields() -> list[tuple[str, FieldInfo]]:
    return list(Settings.model_fields.items())


def _default(field: FieldInfo) -> str:
    match field.default:
        case bool():
            return str(field.default).lower()
        case int() | float():
            return f"{field.default:g}" if field.default < 1 else str(int(field.default))
        case str():
            return f"`{field.default or 'off'}`"
        case _:
            return ""


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
