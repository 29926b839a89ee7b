"""The Python of docs/attach.md is run, in its order, on a database with the table that it names."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from evervec import SemanticCore
from tests.library.articles import TABLE, settled

PAGE = Path(__file__).parents[2] / "docs" / "attach.md"


async def run(block: str, names: dict[str, Any]) -> None:
    """Run a block of Python that may await."""
    made = eval(compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if made is not None:
        await made


async def test_the_page_does_what_it_says(
    local: SemanticCore,
    database_url: str,
    psql: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await psql.execute(TABLE)
    for name, value in (("HOME", local._resources.settings.home), ("LOG_LEVEL", "WARNING")):
        monkeypatch.setenv(f"EVERVEC_{name}", str(value))
    names: dict[str, Any] = {"__name__": "page", "url": database_url}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    await run(blocks[0], names)
    await run(blocks[1], names)
    assert capsys.readouterr().out == "public.articles taking in 0\n"
    (report,) = await local.attachments()
    await settled(local, report)
    assert blocks[2].count("postgresql+asyncpg://…") == 1
    await run(
        blocks[2].replace("postgresql+asyncpg://…", database_url.replace("postgresql", "postgresql+asyncpg")), names
    )
    assert re.fullmatch(r"(-?0\.\d\d \d \w+\n){2}", capsys.readouterr().out)
    await run(blocks[3], names)
    await names["engine"].dispose()
    assert await psql.fetchval("SELECT count(*) FROM public.articles") == 4
    assert await psql.fetchval("SELECT uri FROM evervec.documents WHERE key IS NULL") == "notes:parcels"
