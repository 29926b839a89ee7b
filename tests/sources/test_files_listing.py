"""What is listed of a folder, and what is not: names, patterns, links, and everything that is no file."""

import inspect
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from evervec.domain.documents.document import ListedDocument, SkippedDocument
from evervec.errors import Refused, UnreadablePathError
from evervec.sources.files.file_uris import path_of, stamp_of, uri_of
from evervec.sources.files.ignore import FileFilter, Globs
from evervec.sources.files.listing import FileTree, SkipReason, merge_walks
from evervec.sources.files.roots import Root

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Make files below `tmp_path`, all with a word in them, or one with the lines given."""

    def made(*names: str, lines: Sequence[str] = ("word",)) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines))
        return tmp_path

    return made


def walk(root: Path, most_bytes: int = 1000, **choice: Sequence[str]) -> Iterator[ListedDocument | SkippedDocument]:
    return (one for one, _ in FileTree(Root.at(root), FileFilter(**choice), most_bytes).walk())


def names(root: Path, **choice: Sequence[str]) -> list[str]:
    """Return the paths of listed files, relative to the root."""
    return [str(path_of(one.uri).relative_to(root)) for one in walk(root, **choice) if isinstance(one, ListedDocument)]


def skips(root: Path, **choice: Sequence[str]) -> dict[str, str]:
    """Return the reasons of what was left out, by what follows the root in its uri."""
    begin = len(uri_of(root)) + 1
    return {one.uri[begin:]: one.reason for one in walk(root, **choice) if isinstance(one, SkippedDocument)}


# --- names ------------------------------------------------------------------------------------------------


def test_names_with_newlines_and_without_utf8_are_listed_in_the_order_of_their_uris(tmp_path: Path) -> None:
    given_names = [b"a\nb.md", b"\xff.md", b"b/z.md", b"b.md", b"b-1.md", "é.md".encode()]
    (tmp_path / "b").mkdir()
    for name in given_names:
        (tmp_path / os.fsdecode(name)).touch()
    uris = [one.uri for one in walk(tmp_path)]
    assert uris == sorted(uri_of(tmp_path / os.fsdecode(name)) for name in given_names)


# --- stamps -----------------------------------------------------------------------------------------------


def test_a_stamp_is_given_once_the_file_is_older_than_a_tick(write: Write) -> None:
    path = write("a.md") / "a.md"
    assert stamp_of(path.stat()) is None
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    assert stamp_of(path.stat()) == "4:1700000000123456789"
    assert [one.stamp for one in walk(path) if isinstance(one, ListedDocument)] == ["4:1700000000123456789"]


def test_a_file_from_the_future_has_no_stamp(write: Write) -> None:
    path = write("a.md") / "a.md"
    os.utime(path, (1 << 33, 1 << 33))
    assert stamp_of(path.stat()) is None


# --- what git ignores -------------------------------------------------------------------------------------


def test_gitignore_files_nest_and_take_back(write: Write) -> None:
    root = write("a.log", "keep.log", "sub/b.log", "sub/keep.log", "sub/c.md", "build/x.md", "sub/build/y.md")
    write(".gitignore", lines=["*.log", "!keep.log", "/build/"])
    write("sub/.gitignore", lines=["keep.log", "!b.log"])
    assert names(root) == ["keep.log", "sub/b.log", "sub/build/y.md", "sub/c.md"]


def test_a_folder_that_is_ignored_is_not_entered_whatever_it_says_itself(write: Write) -> None:
    root = write("build/a.md", "b.md")
    write(".gitignore", lines=["build", "!build/a.md"])
    write("build/.gitignore", lines=["!*"])
    assert names(root) == ["b.md"]


def test_rules_from_above_hold_up_to_the_repository(write: Write) -> None:
    root = write("repo/.git/HEAD", "repo/docs/guide/a.md", "repo/docs/guide/b.txt", "repo/docs/guide/c.rst")
    write(".gitignore", lines=["*.rst"])
    write("repo/.gitignore", lines=["*.md"])
    write("repo/docs/.gitignore", lines=["guide/b.txt"])
    assert names(root / "repo/docs/guide") == ["c.rst"]


def test_rules_from_above_do_not_reach_into_another_repository(write: Write) -> None:
    root = write("inner/.git/HEAD", "inner/a.md", "b.md")
    write(".gitignore", lines=["*.md"])
    assert names(root) == ["inner/a.md"]


def test_what_is_named_is_taken_although_it_is_ignored(write: Write) -> None:
    root = write(".git/HEAD", "out/a.md", "out/b.md", "out/c/d.md")
    write(".gitignore", lines=["out/", "*.md"])
    write("out/.gitignore", lines=["b.md"])
    assert names(root) == []
    assert names(root / "out") == ["a.md", "c/d.md"]
    assert names(root / "out/b.md") == ["."]


def test_lines_that_git_passes_over_are_passed_over(write: Write) -> None:
    root = write("a.md", "b.md", "#c.md", "d .md")
    (root / ".gitignore").write_bytes(b"\xef\xbb\xbfa.md\r\n!\n[z-a]\n[[:alpha:]].md\n\\\n# b.md\n\n\\#c.md\nb[\n")
    assert names(root) == ["b.md", "d .md"]


def test_patterns_meet_names_with_newlines_and_without_utf8(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xff*\n*.txt\n")
    (tmp_path / "line\nbreak").mkdir()
    for name in (b"\xffa.md", b"\xfea.md", b"\xff\n.md", b"line\nbreak/a.txt"):
        (tmp_path / os.fsdecode(name)).touch()
    assert names(tmp_path) == ["\udcfea.md"]


def test_a_folder_whose_gitignore_can_not_be_read_is_left_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write("a.md", "sub/b.md", "sub/.gitignore")
    refuse(monkeypatch, Path, "read_bytes", root / "sub/.gitignore")
    assert names(root) == ["a.md"]
    assert skips(root) == {"sub/": "unreadable"}


PARTS = st.sampled_from(["a", "b", "*", "**", "*.md", "c.md", "?.md", "[ab]", "[!a]", "a*"])
PATTERNS = st.builds(
    lambda no, start, parts, end: no + start + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository with every combination of a few names."""
    root = tmp_path_factory.mktemp("repository")
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git(root, "init", "-q")
    folders = [root / folder for folder in ("", "a", "b", "a/a", "a/b", "b/a", "a/b/a", "b/c.md")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    for path in (folder / name for folder in folders for name in ("c.md", "d.md", "aa")):
        if not path.exists():
            path.touch()
    return root


def git(root: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *arguments], cwd=root, env=environment, check=True, capture_output=True
    ).stdout.decode()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PATTERNS, max_size=5), st.lists(PATTERNS, max_size=3), st.lists(PATTERNS, max_size=2))
@example(["*", "!*/", "!*.md"], [], [])
@example(["a/**", "!a/**/", "!a/**/c.md"], [], [])
@example(["a/*", "!a/b"], ["b", "!/b/"], ["!*"])
def test_git_ignores_the_same(repository: Path, top: list[str], middle: list[str], low: list[str]) -> None:
    for folder, patterns in (("", top), ("a", middle), ("a/b", low)):
        (repository / folder / ".gitignore").write_text("\n".join(patterns))
    told = git(repository, "ls-files", "--others", "--exclude-standard", "-z").split("\0")[:-1]
    expected = {name for name in told if not name.endswith(".gitignore")}
    assert set(names(repository, include=["*"])) == expected


# --- what a caller chooses --------------------------------------------------------------------------------


def test_includes_and_excludes_are_relative_to_the_root(write: Write) -> None:
    root = write("a.md", "b.py", "docs/c.md", "docs/d.xyz", "docs/drafts/e.md", "src/docs/f.md")
    assert names(root, include=["*.md"]) == ["a.md", "docs/c.md", "docs/drafts/e.md", "src/docs/f.md"]
    assert names(root, include=["docs/**"]) == ["docs/c.md", "docs/d.xyz", "docs/drafts/e.md"]
    assert names(root, include=["/docs"], exclude=["drafts"]) == ["docs/c.md", "docs/d.xyz"]
    assert names(root, exclude=["*.md", "!a.md"]) == ["a.md", "b.py"]
    assert skips(root) == {"docs/d.xyz": "unknown format"}
    assert skips(root, include=["*.md"]) == {}


def test_globs_hold_for_a_file_that_is_named_too(write: Write) -> None:
    path = write("notes.xyz") / "notes.xyz"
    assert names(path) == ["."]
    assert names(path, include=["*.md"]) == []
    assert names(path, exclude=["*.xyz"]) == []


@pytest.mark.parametrize("glob", ["", "  ", "# x", "!", "a["])
def test_a_glob_that_says_nothing_is_refused(glob: str) -> None:
    with pytest.raises(Refused, match="has no pattern"):
        FileFilter(include=[glob])


def test_hidden_names_and_caches_are_left_out_unless_a_glob_spells_the_dot(write: Write) -> None:
    root = write(".env", ".x.md", ".github/ci.yml", "node_modules/a.md", "src/__pycache__/b.md", ".git/c.md", "d.md")
    assert names(root) == ["d.md"]
    assert names(root, include=["*"]) == ["d.md"]
    assert names(root, include=["*", ".x*"]) == [".x.md", "d.md"]
    assert names(root, include=[".github/**"]) == [".github/ci.yml"]
    assert names(root, include=[".git/**", "node_modules/**"]) == []


@given(st.lists(PATTERNS, max_size=6), st.sampled_from(["a", "a/", "a/b", "a/b/", "c.md", "a/b/c.md"]))
def test_the_last_pattern_that_speaks_decides(patterns: list[str], path: str) -> None:
    said = [one for pattern in patterns if (one := Globs([pattern]).verdict(path)) is not None]
    assert Globs(patterns).verdict(path) == (said[-1] if said else None)


# --- links, and what is no file ---------------------------------------------------------------------------


def test_a_link_to_a_file_is_listed_under_its_own_name(write: Write) -> None:
    root = write("real/a.md", "real/b.xyz")
    (root / "link.md").symlink_to("real/a.md")
    (root / "b.md").symlink_to("real/b.xyz")
    assert names(root) == ["b.md", "link.md", "real/a.md"]


def test_two_links_to_a_folder_are_both_followed_and_a_loop_is_counted(write: Write) -> None:
    root = write("real/deep/a.md")
    (root / "one").symlink_to("real")
    (root / "two").symlink_to(root / "real")
    (root / "real/deep/back").symlink_to("..")
    assert names(root) == ["one/deep/a.md", "real/deep/a.md", "two/deep/a.md"]
    assert skips(root) == dict.fromkeys(["one/deep/back/", "real/deep/back/", "two/deep/back/"], "symlink loop")


def test_a_link_to_itself_and_one_to_nothing_are_counted(write: Write) -> None:
    root = write("a.md")
    (root / "me.md").symlink_to("me.md")
    (root / "lost.md").symlink_to("nowhere")
    assert names(root) == ["a.md"]
    assert skips(root) == {"lost.md": "not a file", "me.md": "symlink loop"}


def test_folders_that_all_link_to_each_other_are_listed_in_bounded_time(tmp_path: Path) -> None:
    for folder in range(12):
        (tmp_path / str(folder)).mkdir()
        (tmp_path / str(folder) / "a.md").touch()
        for other in range(12):
            (tmp_path / str(folder) / f"to{other}").symlink_to(f"../{other}")
    found = names(tmp_path)
    assert {f"{folder}/a.md" for folder in range(12)} <= set(found)
    assert len(found) <= 12 + 12 * 16


def test_sockets_pipes_and_devices_are_counted_and_never_opened(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write("a.md")
    monkeypatch.chdir(root)
    os.mkfifo("pipe.md")
    (root / "null.md").symlink_to("/dev/null")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind("socket.md")
        assert names(root) == ["a.md"]
        details = {
            one.detail for one in walk(root) if isinstance(one, SkippedDocument) and one.reason == SkipReason.NOT_A_FILE
        }
    assert details == {"a pipe", "a device", "a socket"}


def test_large_files_are_counted_and_empty_ones_listed(write: Write) -> None:
    root = write("large.md", lines=["x" * 1001])
    write("empty.md", lines=[])
    assert list(walk(root)) == [
        ListedDocument(uri_of(root / "empty.md")),
        SkippedDocument(uri_of(root / "large.md"), "too large", "1,001 bytes, 1,000 at most"),
    ]


def test_depth_costs_no_recursion(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"d" * 300)  # more would be too deep for what pytest clears its folders with
    deep.mkdir(parents=True)
    (deep / "a.md").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        assert names(tmp_path) == [str((deep / "a.md").relative_to(tmp_path))]
        assert isinstance(FileTree(Root.at(tmp_path), FileFilter(), 1).find(deep / "a.md"), tuple)
    finally:
        sys.setrecursionlimit(limit)


# --- what can not be read, and what goes away -------------------------------------------------------------


def refuse(monkeypatch: pytest.MonkeyPatch, where: object, name: str, refused: Path) -> None:
    """Let a call fail for one path as it does for a user without permission; tests may run as root."""
    real = getattr(where, name)

    def call(path: object) -> object:
        if Path(str(path)) == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(where, name, call)


def test_a_folder_that_can_not_be_scanned_is_counted_and_remembered(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write("a.md", "shut/b.md", "z.md")
    refuse(monkeypatch, os, "scandir", root / "shut")
    tree = FileTree(Root.at(root), FileFilter(), 1000)
    assert [one for one, _ in tree.walk() if isinstance(one, SkippedDocument)] == [
        SkippedDocument(uri_of(root / "shut") + "/", "unreadable", "permission denied")
    ]
    assert tree.blocked == [uri_of(root / "shut") + "/"]


def test_a_root_that_can_not_be_scanned_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Root.at(write("a.md"))
    refuse(monkeypatch, os, "scandir", root.path)
    with pytest.raises(UnreadablePathError, match="can not be read: permission denied"):
        list(FileTree(root, FileFilter(), 1000).walk())


def test_a_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePathError, match="no such file or directory"):
        Root.at(tmp_path / "nothing")


def test_what_is_removed_in_the_middle_of_a_walk_is_not_listed(write: Write) -> None:
    root = write("a/1.md", "b/2.md", "b/c/3.md", "d.md")
    found = FileTree(Root.at(root), FileFilter(), 1000).walk()
    first = next(found)[0]
    shutil.rmtree(root / "b")
    (root / "d.md").unlink()
    assert [first.uri, *(one.uri for one, _ in found)] == [uri_of(root / "a/1.md")]


@pytest.mark.parametrize("emptied", [False, True])
def test_a_root_that_goes_away_in_the_middle_breaks_the_walk_off(write: Write, emptied: bool) -> None:
    root = write("root/a.md", "root/b.md") / "root"
    found = FileTree(Root.at(root), FileFilter(), 1000).walk()
    next(found)
    root.rename(root.with_name("elsewhere"))
    if emptied:
        root.mkdir()
    with pytest.raises(UnreadablePathError, match=r"another folder took its place|no such file"):
        list(found)


def test_roots_inside_each_other_list_a_file_once_and_what_either_has(write: Write) -> None:
    root = write("a.md", "sub/b.xyz", "sub/c.md", "out/d.md")
    write(".gitignore", lines=["out"])
    roots = [root, root / "sub", root / "sub/b.xyz", root / "out"]
    found = [one for one, _ in merge_walks([FileTree(Root.at(path), FileFilter(), 1000).walk() for path in roots])]
    assert found == [ListedDocument(uri_of(root / name)) for name in ("a.md", "out/d.md", "sub/b.xyz", "sub/c.md")]
