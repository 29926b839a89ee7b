"""The Python of docs/library.md is run as it stands: a script, FastAPI, Django, a notebook, LangChain, LlamaIndex."""

import ast
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import django
import pytest
from django.conf import settings as django_settings
from django.test import Client
from starlette.testclient import TestClient

from evervec import SemanticCore, engine
from tests.fakes.thread import FakeProviderThread

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
TEXT = PAGE.read_text()
BLOCKS = {
    title: re.findall(r"^```python\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    for title, part in re.findall(r"^#+ ([^\n]*)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
}


@pytest.fixture
def names(database_url: str, how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what a block of the page is run with: the address, and the settings as a service has them."""
    monkeypatch.chdir(tmp_path)
    for name, value in how.items():
        monkeypatch.setenv(f"EVERVEC_{name.upper()}", str(value))
    return {"__name__": "page", "url": database_url}


def run(block: str, names: dict[str, Any]) -> Any:
    """Run a block; return what is to be awaited, if it awaits at its top."""
    return eval(compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)


def test_a_script(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.md").write_text("# Retrying\n\nA failed job is tried again.\n")
    (block,) = BLOCKS["In a program"]
    run(block, names)
    assert re.fullmatch(r"0\.\d\d .*A failed job is tried again\.\s*", capsys.readouterr().out, re.DOTALL)


async def test_documents_and_a_notebook(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = BLOCKS["Documents"]
    await run(block, names)
    text, listed, found = capsys.readouterr().out.splitlines()
    assert text == "A late parcel waits at the depot. {'team': 8}"
    assert (listed, found) == ("faq/late 1 0", "{'team': 8} 0")
    (block,) = BLOCKS["A notebook"]
    await run(block, names)
    assert names["answer"][0].text == "birds sing in the morning"
    await names["core"].close()


def test_fastapi(names: dict[str, Any]) -> None:
    (block,) = BLOCKS["FastAPI"]
    run(block, names)
    with TestClient(names["app"]) as client:
        done = client.put("/notes/late", content="A late parcel waits.", headers={"content-type": "text/plain"})
        assert (done.status_code, done.json()) == (200, {"chunks": 1, "pending": 0})
        (found,) = client.get("/notes", params={"q": "where is my parcel", "k": 1}).json()
        assert (found["note"], found["score"] > 0.2) == ("late", True)


def test_django(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = BLOCKS["Django"]
    page = ModuleType("page_of_django")
    page.__dict__.update(names)
    run(block, page.__dict__)
    monkeypatch.setitem(sys.modules, page.__name__, page)
    django_settings.configure(ROOT_URLCONF=page.__name__, ALLOWED_HOSTS=["testserver"], SECRET_KEY="of-a-test")
    django.setup(set_prefix=False)
    try:
        client = Client()
        done = client.generic("PUT", "/notes/late", "A late parcel waits.")
        assert (done.status_code, done.json()) == (200, {"chunks": 1, "pending": 0})
        (found,) = client.get("/notes", {"q": "where is my parcel"}).json()["notes"]
        assert (found["note"], found["score"] > 0.2) == ("late", True)
    finally:
        page.__dict__["core"].close()


def test_gemini_alone(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = BLOCKS["Gemini's batch API alone"]
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    with FakeProviderThread(dims=768) as fake:
        assert block.count("dimensions=768") == 1
        run(block.replace("dimensions=768", f"dimensions=768, base_url={fake.url!r}"), names)
        while not names["client"].get_job_status(names["job_id"]).over:
            assert len(fake.requests) < 50
        assert names["client"].download_results(names["job_id"]).keys() == {17, 18}
        names["client"].close()
    assert capsys.readouterr().out.strip() in ("waiting", "running", "succeeded")


def test_langchain_and_llamaindex(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for block in BLOCKS["LangChain and LlamaIndex"]:
        run(block, dict(names))
    assert capsys.readouterr().out.splitlines() == ["Ask the depot first.", "notes", "Ask the depot first."]


def test_the_table_of_the_engine_is_the_engine() -> None:
    told = re.findall(r"^\| `(\w+)\(", TEXT, re.MULTILINE)
    assert sorted(told) == sorted(engine.__all__)
    assert all(getattr(SemanticCore, name).__doc__ for name in ("get", "list", "update_metadata", "start", "close"))
