"""Which names are left out: gitignore patterns, the .gitignore files that hold in a folder, and what a caller chose."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Final

from evervec.errors import Refused
from evervec.extras import extra

_ALWAYS: Final = frozenset({"__pycache__", "node_modules"})
_BOM: Final = b"\xef\xbb\xbf"

# pathspec asks whether a file lies below what a pattern names. A walk from the top asks of each name alone, as git does.
_BELOW: Final = re.compile(r"/\*\*(/?)\s*$")
_EVERYTHING: Final = {".": ".+", "(?P<ps_d>/)": ".+/"}
_MISREAD: Final = re.compile(r"\[\[|&&|--|\|\||~~")


class Globs:
    """The patterns of one .gitignore file or option; the last one that matches decides.

    A path is matched for itself, never for a folder above it: who leaves out a folder does not enter it.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        told = [found for line in lines if (found := _translated(line))][::-1]
        self._wanted = [wanted for _, wanted in told]
        self._expression = re.compile("|".join(f"({body})" for body, _ in told) or "(?!)", re.DOTALL)

    def verdict(self, path: str) -> bool | None:
        """Whether a relative path (a folder's with `/` at its end) is meant: False where negated, None where not told."""
        match = self._expression.fullmatch(path)
        return self._wanted[match.lastindex - 1] if match and match.lastindex else None


def _translated(line: str) -> tuple[str, bool] | None:
    """A pattern's expression and whether it is a plain one; None for a comment, and for what git passes over too."""
    with extra("files", "Reading a folder"):
        from pathspec.patterns.gitignore.base import GitIgnorePatternError
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern
    try:
        body, wanted = GitIgnoreSpecPattern.pattern_to_regex(_BELOW.sub(r"/**/*\1", line))
        if body is None or wanted is None or _MISREAD.search(body):
            return None
        body = _EVERYTHING.get(body, body).replace("(?P<ps_d>/)", "/")
        return re.compile(body).pattern, wanted
    except (GitIgnorePatternError, re.error):
        return None


Rules = tuple[tuple[int, Globs], ...]
"""The .gitignore files that hold in a folder, nearest first: where the paths that they speak of begin, what they say."""


def ignored(path: str, rules: Rules) -> bool:
    """Whether the nearest rule that speaks of an absolute path (a folder's with `/` at its end) leaves it out."""
    return next((said for start, globs in rules if (said := globs.verdict(path[start:])) is not None), False)


def rules_in(folder: Path, above: Rules) -> Rules:
    """The rules inside a folder, given those above it; a repository of its own begins anew, as in git.

    Raises `OSError` when there is a .gitignore that can not be read: what it would leave out is not known then.
    """
    inherited = () if (folder / ".git").exists() else above
    text = _read(folder / ".gitignore")
    if not text:
        return inherited
    lines = os.fsdecode(text.removeprefix(_BOM)).split("\n")
    return ((len(_inside(folder)), Globs(lines)), *inherited)


def rules_above(folder: Path) -> Rules:
    """What the folders above say, from the repository's own on; nothing outside of a repository.

    Nothing either for a folder that they leave out: who names it wants it. Raises `OSError` as `rules_in` does.
    """
    way = [folder, *folder.parents]
    top = next((depth for depth, at in enumerate(way) if (at / ".git").exists()), 0)
    rules: Rules = ()
    for at, below in zip(way[top:0:-1], way[top - 1 :: -1], strict=False):
        rules = rules_in(at, rules)
        if ignored(_inside(below), rules):
            return ()
    return rules


def _inside(folder: Path) -> str:
    return str(folder).rstrip("/") + "/"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


@dataclass(frozen=True)
class FileFilter:
    """What a caller wants of a folder's files, by globs relative to the root: a path must match one of `include`, where
    there is any, and none of `exclude`. Raises `Refused` for a glob that says nothing.

    `.git`, and the caches `__pycache__` and `node_modules`, which hold copies in any number, are never wanted. Hidden
    names (`.x`) are where an included glob spells their dot: as in a shell, `*` does not stand for it.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        for glob in (*self.include, *self.exclude):
            if _translated(glob) is None:
                raise Refused(reason=f"The glob {glob!r} says nothing. Give one like '*.md', 'docs/**' or '!draft.md'.")

    @cached_property
    def _included(self) -> Globs:
        return Globs(self.include)

    @cached_property
    def _excluded(self) -> Globs:
        return Globs(self.exclude)

    def allows_name(self, name: str) -> bool:
        """Whether a name (of a file or folder) may be looked at, before any glob is asked."""
        if name in _ALWAYS or name == ".git":
            return False
        spelled = (part for glob in self.include for part in glob.split("/") if part.startswith("."))
        return not name.startswith(".") or any(fnmatchcase(name, part) for part in spelled)

    def excludes(self, path: str) -> bool:
        """Whether an excluding glob names a path relative to the root."""
        return self._excluded.verdict(path) is True

    def includes(self, path: str, *, above: bool) -> bool:
        """Whether an including glob names a path relative to the root, or named the folder `above` it."""
        said = self._included.verdict(path)
        return above if said is None else said
