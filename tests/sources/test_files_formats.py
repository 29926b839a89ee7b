"""Which format a name promises."""

from pathlib import Path

import pytest

from evervec.sources.files.formats import format_by_first_line, format_of, is_known_format


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.md", "markdown"),
        ("A.MD", "markdown"),
        ("notes.v2.rst", "rst"),
        ("a.txt", "plain"),
        ("README", "plain"),
        ("license", "plain"),
        ("Makefile", "plain"),
        ("Dockerfile", "plain"),
        ("a.yaml", "plain"),
        ("a.proto", "plain"),
        ("a.py", "python"),
        ("a.pyi", "python"),
        ("a.tsx", "tsx"),
        ("a.mts", "typescript"),
        ("a.mjs", "javascript"),
        ("a.h", "c"),
        ("a.hpp", "cpp"),
        ("a.c++", "cpp"),
        ("a.cs", "csharp"),
        ("Rakefile", "ruby"),
        ("a.sh", "bash"),
        ("a.kts", "kotlin"),
        ("a.htm", "html"),
        ("a.ipynb", "notebook"),
        ("a.PDF", "pdf"),
        ("a", None),
        ("a.png", None),
        ("a.bin", None),
        (".py", None),
        (".env", None),
        ("py", None),
        ("x\udce9\n.py", "python"),
    ],
)
def test_a_name_promises_a_format(name: str, expected: str | None) -> None:
    assert format_of(Path("/some/folder.md") / name) == expected
    assert is_known_format(Path("/some/folder.md") / name) == (expected is not None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("#!/usr/bin/python3.11\nx", "python"),
        ("#!/usr/bin/env -S python3 -u", "python"),
        ("#!/usr/bin/env LANG=C bash", "bash"),
        ("#!/bin/sh", "bash"),
        ("#! /usr/bin/env node\n", "javascript"),
        ("#!/usr/bin/perl", "plain"),
        ("#!\n", "plain"),
        ("#!", "plain"),
        ("# python\n#!/bin/sh", "plain"),
        ("", "plain"),
    ],
)
def test_the_first_line_names_the_interpreter(line: str, expected: str) -> None:
    assert format_by_first_line(line) == expected
