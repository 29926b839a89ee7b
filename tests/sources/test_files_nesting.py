"""Roots in roots: which are part of another one, and which were named because they are not."""

from pathlib import Path

import pytest

from evervec.sources.files.file_uris import uri_of
from evervec.sources.files.nested_roots import outermost_roots


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make folders in folders; git leaves out `out`."""
    for name in ("sub/deep/a.md", "sub/odd.xyz", "out/b.md", ".hidden/c.md", "subway/d.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    (tmp_path / ".gitignore").write_text("out/\n")
    return tmp_path


def homes(folder: Path, *names: str) -> list[str]:
    """Return the outermost root of each root, by name; the folder itself is "" and a slash."""
    at = uri_of(folder) + "/"
    return [home.removeprefix(at) or "/" for home in outermost_roots(at + name for name in names).values()]


def test_what_a_folder_reaches_is_part_of_the_outermost_one(folder: Path) -> None:
    assert homes(folder, "sub/deep/a.md", "sub/deep/", "sub/", "") == ["/"] * 4
    assert homes(folder, "sub/", "sub/deep/", "sub/deep/a.md", "subway/") == ["sub/"] * 3 + ["subway/"]


def test_what_it_does_not_reach_is_a_root_of_its_own(folder: Path) -> None:
    own = ["out/", ".hidden/", "sub/odd.xyz", "sub/gone/", "sub/gone.md"]
    assert homes(folder, "", *own) == ["/", *own]
    assert homes(folder, "", "out/", "out/b.md") == ["/", "out/", "out/"]


def test_a_folder_that_is_away_has_nothing_in_it(folder: Path) -> None:
    assert homes(folder, "away/", "away/sub/", "sub/") == ["away/", "away/sub/", "sub/"]
    assert homes(folder, "sub/odd.xyz/", "sub/odd.xyz/a.md") == ["sub/odd.xyz/", "sub/odd.xyz/a.md"]


def test_a_disk_is_a_root_of_its_own_mounted_or_not(folder: Path) -> None:
    (folder / "mnt").mkdir()
    assert homes(folder, "", "mnt/") == ["/", "mnt/"]
    assert outermost_roots(["file:////", "file:///proc/"])["file:///proc/"] == "file:///proc/"


def test_the_root_of_all_files_is_one_too() -> None:
    etc = uri_of(Path("/etc")) + "/"
    assert outermost_roots(["file:////", etc])[etc] == "file:////"
