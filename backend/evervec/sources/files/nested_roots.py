"""Roots inside other roots: a root that an outer one already reaches is part of the outer one."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from evervec.errors import UnreadablePathError
from evervec.sources.files.file_uris import path_of, uri_of
from evervec.sources.files.ignore import FileFilter
from evervec.sources.files.listing import FileTree
from evervec.sources.files.roots import Root

_EVERYTHING: Final = FileFilter((), ())


def outermost_roots(uris: Iterable[str]) -> dict[str, str]:
    """Return each root with the outermost root that reaches it, which may be itself.

    The uri of a folder ends in a slash. Filters do not count: those of the outer root apply. Files that git ignores,
    hidden ones and unknown formats are not reached: such a root was named on purpose. A mount point is not reached
    either: files that are missing while nothing is mounted are not deleted.
    """
    roots = {uri: path_of(uri) for uri in uris}
    folders = [Root(path, True) for uri, path in roots.items() if uri.endswith("/")]
    trees = {root.path: FileTree(root, _EVERYTHING, sys.maxsize) for root in folders if not root.unreadable_reason()}
    return {uri: next(_above(path, trees), uri) for uri, path in roots.items()}


def _above(path: Path, trees: Mapping[Path, FileTree]) -> Iterator[str]:
    for above in reversed(path.parents):
        if above in trees and _reaches(trees[above], above, path):
            yield uri_of(above) + "/"


def _reaches(tree: FileTree, above: Path, path: Path) -> bool:
    try:
        return tree.reaches(path) and not _is_disk(path, above)
    except (OSError, UnreadablePathError):
        return False


def _is_disk(path: Path, above: Path) -> bool:
    """Return whether a folder is on another file system than the one above.

    An empty folder counts too: it may be a mount point while nothing is mounted.
    """
    return path.is_dir() and (path.stat().st_dev != above.stat().st_dev or not any(path.iterdir()))
