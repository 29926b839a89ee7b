"""Jupyter notebooks into Markdown: cells in order, code fenced, outputs left out; what is none is torn."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.domain.documents.document import IncomingDocument, SkippedDocument
from evervec.sources.files.readers.document import read_bytes


def cell(kind: str, source: object, **more: object) -> dict[str, object]:
    return {"cell_type": kind, "metadata": {}, "source": source, **more}


def notebook(*cells: object, language: object = "python") -> bytes:
    metadata = {"kernelspec": {"name": "x", "language": "other"}, "language_info": {"name": language}}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}).encode()


def read(data: bytes) -> IncomingDocument | SkippedDocument:
    return read_bytes(data, "a.ipynb", "file:///a")


def text(data: bytes) -> str:
    found = read(data)
    assert isinstance(found, IncomingDocument), found
    assert found.format == "markdown"
    return found.text


def test_a_notebook_is_its_cells_in_order() -> None:
    output = {"output_type": "stream", "name": "stdout", "text": ["not this\n"]}
    data = notebook(
        cell("markdown", ["# Sales\n", "\n", "By *month*."]),
        cell("code", ["import csv\n", "# read\n", "rows = list(csv.reader(f))\n"], outputs=[output], execution_count=1),
        cell("code", "  \n", outputs=[]),
        cell("raw", "as it is"),
        cell("markdown", "The end\r\nof it"),
    )
    expected = (
        "# Sales\n\nBy *month*.\n\n```python\nimport csv\n# read\nrows = list(csv.reader(f))\n```\n\n"
        "```\nas it is\n```\n\nThe end\nof it"
    )
    assert read(data) == IncomingDocument("file:///a", "Sales", expected, "markdown")


def test_a_run_changes_nothing() -> None:
    before, after = cell("code", "1 + 1", outputs=[], execution_count=None), cell("code", "1 + 1", execution_count=7)
    assert text(notebook(before)) == text(notebook({**after, "outputs": [{"data": {"text/plain": ["2"]}}]}))


def test_a_fence_is_longer_than_those_in_the_code() -> None:
    assert text(notebook(cell("code", 'x = """\n````\n"""'))) == '`````python\nx = """\n````\n"""\n`````'


@pytest.mark.parametrize(("language", "fence"), [("R", "```r"), ("c++", "```c++"), ("a b\n", "```"), (7, "```")])
def test_the_fence_names_the_kernels_language(language: object, fence: str) -> None:
    assert text(notebook(cell("code", "x"), language=language)).split("\n")[0] == fence


def test_the_old_format_with_worksheets_is_read() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Old\n", "times"]},
        {"cell_type": "code", "language": "python", "input": ["x = 1\n", "y = 2"], "outputs": []},
    ]
    data = json.dumps({"nbformat": 3, "metadata": {}, "worksheets": [{"cells": cells}, {"cells": []}]}).encode()
    assert text(data) == "## Old times\n\n```python\nx = 1\ny = 2\n```"


def test_a_notebook_without_cells_is_an_empty_document() -> None:
    assert text(notebook()) == text(notebook(cell("code", ""))) == ""


def test_escapes_that_postgresql_can_not_store_are_cleaned() -> None:
    assert text(notebook(cell("markdown", "a\0b\ud800c"))) == "ab\ufffdc"


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b'{\n "cells": [\n  oops', "line 3, column 3"),
        (b'{"cells": [', "not JSON"),
        (b"\n", "not JSON"),
        (b"[1, 2]", "no notebook"),
        (b'"text"', "no notebook"),
        (b"{}", "no list of cells"),
        (b'{"cells": {}}', "no list of cells"),
        (b'{"worksheets": [7]}', "no list of cells"),
        (b'{"worksheets": 7}', "no list of cells"),
        (b'{"cells": [7]}', "cell 1 has no source"),
        (b'{"cells": [{"cell_type": "code", "source": ["x", 7]}]}', "cell 1 has no source"),
        (b'{"cells": [{"cell_type": "raw", "source": ""}, {"source": null}]}', "cell 2 has no source"),
        (b"[" * 200_000, "beyond bounds"),
        (b'{"cells": ' + b"9" * 5000 + b"}", "beyond bounds"),
    ],
)
def test_what_is_no_notebook_is_torn_and_says_where(data: bytes, detail: str) -> None:
    found = read(data)
    assert isinstance(found, SkippedDocument) and found.reason == "torn"
    assert detail in found.detail


KEYS = st.sampled_from(["cells", "worksheets", "cell_type", "source", "metadata", "language_info", "name", "level"])
JSON = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


@given(JSON)
def test_no_json_raises(value: object) -> None:
    for whole in (value, {"cells": value}, {"cells": [value]}, {"cells": [], "metadata": value}):
        assert isinstance(read(json.dumps(whole).encode()), IncomingDocument | SkippedDocument)
