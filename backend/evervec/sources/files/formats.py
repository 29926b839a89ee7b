"""The format of a file, by its name or its first line: one table; no file is opened here."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Final

PLAIN: Final = "plain"
HTML: Final = "html"
NOTEBOOK: Final = "notebook"
PDF: Final = "pdf"

_SUFFIXES: Final[Mapping[str, str]] = {
    "markdown": "md markdown mdown mkd mdx qmd rmd",
    "rst": "rst rest",
    PLAIN: (
        "txt text log csv tsv json jsonl ndjson json5 yaml yml toml ini cfg conf properties xml xsd xsl dtd sql graphql "
        "gql proto thrift css scss sass less adoc asciidoc org textile tex bib po pot diff patch srt vtt eml cmake mk "
        "gradle tf hcl nix bat cmd ps1 fish awk lua pl pm r jl ex exs erl hrl hs ml mli clj cljs lisp el scm vim dart zig "
        "nim groovy m mm pas f90 asm s v vhd pyx pxd vue svelte j2 jinja in"
    ),
    HTML: "html htm xhtml",
    NOTEBOOK: "ipynb",
    PDF: "pdf",
    "python": "py pyi pyw",
    "javascript": "js jsx mjs cjs",
    "typescript": "ts mts cts",
    "tsx": "tsx",
    "go": "go",
    "rust": "rs",
    "java": "java",
    "c": "c h",
    "cpp": "cpp cc cxx c++ hpp hh hxx h++ ipp cu",
    "csharp": "cs csx",
    "ruby": "rb rake gemspec",
    "php": "php phtml",
    "bash": "sh bash zsh ksh bats",
    "kotlin": "kt kts",
    "swift": "swift",
    "scala": "scala sc sbt",
}

_NAMES: Final[Mapping[str, str]] = {
    PLAIN: (
        "readme license licence copying notice authors contributors maintainers changelog changes history news todo "
        "install makefile gnumakefile dockerfile containerfile jenkinsfile procfile justfile codeowners"
    ),
    "ruby": "gemfile rakefile vagrantfile brewfile",
    "python": "sconstruct sconscript",
}

_INTERPRETERS: Final[Mapping[str, str]] = {
    "python": "python pypy",
    "bash": "sh bash zsh ksh dash",
    "javascript": "node nodejs",
    "ruby": "ruby",
    "php": "php",
}


def _turned(table: Mapping[str, str]) -> dict[str, str]:
    return {word: format_ for format_, words in table.items() for word in words.split()}


_BY_SUFFIX: Final = _turned(_SUFFIXES)
_BY_NAME: Final = _turned(_NAMES)
_BY_INTERPRETER: Final = _turned(_INTERPRETERS)


def format_of(path: PurePath) -> str | None:
    """Return the format that a name promises (`python`, `html`, `pdf`, …), in any letter case; None if unknown."""
    return _BY_SUFFIX.get(path.suffix[1:].lower()) or _BY_NAME.get(path.name.lower())


def is_known_format(path: PurePath) -> bool:
    """Return whether the format of this name is known, so that the file is read without being named."""
    return format_of(path) is not None


def format_by_first_line(text: str) -> str:
    """Return the format of a text whose name tells nothing: by its `#!` line, else `plain`."""
    if not text.startswith("#!"):
        return PLAIN
    words = text[2:256].partition("\n")[0].split()
    programs = [word.rpartition("/")[2] for word in words if not word.startswith("-") and "=" not in word]
    program = next((word for word in programs if word != "env"), "")
    return _BY_INTERPRETER.get(program.rstrip("0123456789."), PLAIN)
