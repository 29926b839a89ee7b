"""The names of files as URIs and back, whatever bytes they are made of; and what is no name."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evervec.errors import Refused
from evervec.sources.files.file_uris import path_of, uri_of
from evervec.sources.files.roots import Root

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))


@given(st.lists(NAMES, min_size=1, max_size=5))
@example([b"a\nb.md"])
@example([b"\xff\xfe", "é%2F ?#.md".encode()])
def test_every_name_has_one_uri_and_comes_back(parts: list[bytes]) -> None:
    path = Path(os.fsdecode(b"/" + b"/".join(parts)))
    uri = uri_of(path)
    assert path_of(uri) == path
    assert uri == path.as_uri()
    assert uri.isascii() and uri.isprintable()


def test_a_uri_has_no_dots_and_keeps_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("/")
    monkeypatch.chdir(tmp_path)
    assert uri_of(Path("link/../x/./a b.md")) == f"file://{tmp_path}/x/a%20b.md"
    assert uri_of(Path("//etc/x")) == "file:///etc/x"
    assert path_of("file:///a/../b%0A") == Path("/b\n")


@pytest.mark.parametrize("uri", ["", "a.md", "http://x/a.md", "file://host/a.md", "file:///a%00b", "file:///\ud800"])
def test_what_is_no_uri_of_a_file_is_refused(uri: str) -> None:
    with pytest.raises(Refused, match="not the URI of a file"):
        path_of(uri)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_no_file_is_called_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="can not be the name of a file"):
        uri_of(Path(name))
    with pytest.raises(Refused, match="can not be the name of a file"):
        Root.at(Path(name))
