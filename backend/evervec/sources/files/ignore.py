"""Which files are left out: gitignore patterns, the .gitignore files of a folder, and the globs of a caller."""

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

# pathspec's patterns also match files below a named folder. A walk from the top checks each name alone, as git does.
_BELOW: Final = re.compile(r"/\*\*(/?)\s*$")
_EVERYTHING: Final = {".": ".+", "(?P<ps_d>/)": ".+/"}
_MISREAD: Final = re.compile(r"\[\[|&&|--|\|\||~~")


class Globs:
    """The patterns of one .gitignore file or option; the last one that matches decides.

    Only the path itself is matched, not the folders above it: a folder that is left out is not entered.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        patterns = [found for line in lines if (found := _translated(line))][::-1]
        self._wanted = [wanted for _, wanted in patterns]
        self._expression = re.compile("|".join(f"({body})" for body, _ in patterns) or "(?!)", re.DOTALL)

    def verdict(self, path: str) -> bool | None:
        """Return whether a relative path (a folder's ends in `/`) matches: False if negated, None if no match."""
        match = self._expression.fullmatch(path)
        return self._wanted[match.lastindex - 1] if match and match.lastindex else None


def _translated(line: str) -> tuple[str, bool] | None:
    """Return a pattern's expression and whether it is not negated; None for a comment and for what git ignores too."""
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
"""The .gitignore files that apply in a folder, nearest first: where their relative paths begin, and their patterns."""


def ignored(path: str, rules: Rules) -> bool:
    """Return whether the nearest rule that matches an absolute path (a folder's ends in `/`) leaves it out."""
    return next((verdict for start, globs in rules if (verdict := globs.verdict(path[start:])) is not None), False)


def rules_in(folder: Path, above: Rules) -> Rules:
    """Return the rules inside a folder, given those above it; a nested repository starts without them, as in git.

    Raises `OSError` when there is a .gitignore that can not be read: what it would leave out is not known then.
    """
    inherited = () if (folder / ".git").exists() else above
    text = _read(folder / ".gitignore")
    if not text:
        return inherited
    lines = os.fsdecode(text.removeprefix(_BOM)).split("\n")
    return ((len(_inside(folder)), Globs(lines)), *inherited)


def rules_above(folder: Path) -> Rules:
    """Return the rules of the folders above, up to the root of the repository; none outside of a repository.

    None either for a folder that they leave out: a user who names it wants it. Raises `OSError` as `rules_in` does.
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
    """A caller's choice of files, by globs relative to the root. Raises `Refused` for a glob without a pattern.

    A path must match one of `include`, where there is any, and none of `exclude`. `.git`, and the caches `__pycache__`
    and `node_modules`, which may hold any number of copies, are never included. Hidden names (`.x`) are included where
    an including glob spells their dot: as in a shell, `*` does not match it.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        for glob in (*self.include, *self.exclude):
            if _translated(glob) is None:
                raise Refused(
                    reason=f"The glob {glob!r} has no pattern. Give one like '*.md', 'docs/**' or '!draft.md'."
                )

    @cached_property
    def _included(self) -> Globs:
        return Globs(self.include)

    @cached_property
    def _excluded(self) -> Globs:
        return Globs(self.exclude)

    def allows_name(self, name: str) -> bool:
        """Return whether a name (of a file or folder) may be looked at, before any glob is checked."""
        if name in _ALWAYS or name == ".git":
            return False
        spelled = (part for glob in self.include for part in glob.split("/") if part.startswith("."))
        return not name.startswith(".") or any(fnmatchcase(name, part) for part in spelled)

    def excludes(self, path: str) -> bool:
        """Return whether an excluding glob matches a path relative to the root."""
        return self._excluded.verdict(path) is True

    def includes(self, path: str, *, above: bool) -> bool:
        """Return whether an including glob matches a path relative to the root, or matched the folder `above` it."""
        verdict = self._included.verdict(path)
        return above if verdict is None else verdict
