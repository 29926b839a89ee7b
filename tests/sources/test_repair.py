"""Bytes on their way to the parser: defects of real exports are mended wherever the chunks happen to be cut."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.sources.telegram.repair import RepairedBytes, repair


def through(data: bytes, size: int) -> bytes:
    source = RepairedBytes(io.BytesIO(data))
    return b"".join(iter(lambda: source.read(size), b""))


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists, max_leaves=20), st.integers(1, 40), st.booleans())
def test_good_json_passes_unchanged_however_it_is_cut(value: object, size: int, pretty: bool) -> None:
    data = json.dumps(value, ensure_ascii=False, indent=1 if pretty else None).encode("utf-8", "surrogatepass")
    assert json.loads(through(data, size)) == value


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
@pytest.mark.parametrize(
    ("defect", "text"),
    [
        (rb"1=412\x012=97", "1=412\x012=97"),  # Telegram Desktop escapes control characters like this
        (rb"\ud800.", "\ufffd."),
        (rb"\udc00.", "\ufffd."),
        (rb"\ud83d\ude00\ude00", "😀\ufffd"),
        (rb"C:\\ud800\\x01", r"C:\ud800\x01"),
        (rb"\\\ud800", "\\\ufffd"),
        (b"caf\xe9!", "caf\ufffd!"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"nul\x00\x1f", "nul"),
        (rb"say \": NaN\" and \"document_id\": x", 'say ": NaN" and "document_id": x'),
    ],
)
def test_a_defect_inside_a_text_is_mended_and_nothing_else(defect: bytes, text: str, size: int) -> None:
    assert json.loads(through(b'{"a": "' + defect + b'", "b": 1}', size)) == {"a": text, "b": 1}


def test_a_document_id_without_quotes_is_quoted() -> None:
    data = b'{\n "document_id": video_files/sticker (2).webm,\n "document_id": 51,\n "n": "x"\n}'
    assert json.loads(repair(data)) == {"document_id": "51", "n": "x"}
    assert b'"document_id": "video_files/sticker (2).webm",\n' in repair(data)


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize("layout", [b'{"a": %b, "b": 1}', b'{"b": 1, "a":%b}', b'{\n "a": %b,\n "b": 1\n}'])
@pytest.mark.parametrize("size", [3, 8, 64])
def test_numbers_that_json_does_not_have_become_null(value: bytes, layout: bytes, size: int) -> None:
    assert json.loads(through(layout % value, size)) == {"a": None, "b": 1}


def test_a_byte_order_mark_is_left_out() -> None:
    assert through(b"\xef\xbb\xbf{}", 2) == b"{}"


def test_the_position_is_a_byte_of_the_file() -> None:
    source = RepairedBytes(io.BytesIO(b'{"a": 1}\n{"b'))
    source.read(64)
    assert source.position == 9
    source.read(64)
    assert (source.position, source.ended) == (12, True)
