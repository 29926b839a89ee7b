"""PDF into text: pages in order, and a reason for what is locked, torn, scanned or made to fill the memory."""

import io
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from evervec.domain.documents.document import IncomingDocument, SkippedDocument
from evervec.sources.files.readers import pdf as module
from evervec.sources.files.readers.document import read_bytes
from evervec.sources.files.readers.pdf import pdf_text
from evervec.sources.files.readers.unreadable import Unreadable

FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def written(objects: list[bytes]) -> bytes:
    """Write a file of these objects, numbered from 1; the first is the catalog."""
    out, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    entries = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    table = b"xref\n0 %d\n0000000000 65535 f \n%b" % (size, entries)
    return out + table + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(out))


def stream(content: bytes, head: bytes = b"") -> bytes:
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(content), head, content)


def pdf(*contents: bytes, form: bytes = stream(b"")) -> bytes:
    """Write pages with these contents; each may use font /F and form /X."""
    first = 5
    kids = b" ".join(b"%d 0 R" % (first + 2 * number) for number in range(len(contents)))
    pages = b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(contents))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", pages, FONT, form]
    for number, content in enumerate(contents):
        resources = b"<< /Font << /F 3 0 R >> /XObject << /X 4 0 R >> >>"
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R /Resources %b >>"
        objects += [page % (first + 2 * number + 1, resources), content]
    return written(objects)


def shown(*lines: bytes) -> bytes:
    return stream(b"BT /F 12 Tf 72 720 Td 14 TL %b ET" % b" ".join(b"(%b) Tj T*" % line for line in lines))


def twice_packed(content: bytes) -> bytes:
    packed = zlib.compress(zlib.compress(content, 9), 9)
    return stream(packed, b"/Filter [/FlateDecode /FlateDecode]")


def bomb(megabytes: int, head: bytes = b"") -> bytes:
    """Pack so many MB of spaces twice into a few KB: one block that stands for a megabyte, many times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(b" " * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    once = b"\x78\xda" + block * megabytes + packer.flush()
    return stream(zlib.compress(once, 9), b"/Filter [/FlateDecode /FlateDecode] " + head)


def changed(data: bytes, *, title: str = "", password: str | None = None, algorithm: str | None = None) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    if title:
        writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(user_password=password, owner_password="owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def refused(data: bytes) -> SkippedDocument:
    read = read_bytes(data, "a.pdf", "file:///a")
    assert isinstance(read, SkippedDocument), read
    return read


TWO_PAGES = pdf(shown(b"First line", b"second line"), twice_packed(b"BT /F 12 Tf 72 720 Td (Page two) Tj ET"))
TEXT = "First line\nsecond line\n\f\nPage two"


def test_pages_are_read_in_order_and_parted_by_a_form_feed() -> None:
    assert read_bytes(TWO_PAGES, "a.pdf", "file:///a") == IncomingDocument("file:///a", "", TEXT, "plain")


@pytest.mark.parametrize(
    ("named", "title"),
    [
        ("On\n Retrying", "On Retrying"),
        ("Microsoft Word - plan_v3.docx", ""),
        ("untitled", ""),
        ("Untitled document 2", ""),
        ("report-final.DOC", ""),
        ("Document1", ""),
        ("Titles and their meaning", "Titles and their meaning"),
        ("Slide design for everyone", "Slide design for everyone"),
    ],
)
def test_a_title_is_taken_if_its_author_gave_it(named: str, title: str) -> None:
    assert pdf_text(changed(TWO_PAGES, title=named)) == (title, TEXT)


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_a_pdf_with_a_password_is_encrypted_and_one_without_is_read(algorithm: str) -> None:
    assert refused(changed(TWO_PAGES, password="secret", algorithm=algorithm)).reason == "encrypted"
    assert pdf_text(changed(TWO_PAGES, password="", algorithm=algorithm)) == ("", TEXT)


@pytest.mark.parametrize("data", [pdf(), pdf(stream(b"q 612 0 0 792 0 0 cm /X Do Q"), shown(b"  "))])
def test_a_pdf_of_pictures_has_no_text(data: bytes) -> None:
    assert refused(data).reason == "no text"


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04" + zlib.compress(b"0" * 1_000_000),
        b"just words",
        b"%PDF-1.7\n",
        b"%PDF-1.7\n" + bytes(range(256)) * 1000,
        TWO_PAGES[: len(TWO_PAGES) // 2],
        TWO_PAGES.replace(b"/Kids [5 0 R", b"/Kids [2 0 R"),
        b"%PDF-1.7\n1 0 obj\n" + b"[" * 100_000 + b"\nendobj\ntrailer << /Root 1 0 R >>\nstartxref\n9\n%%EOF",
    ],
    ids=["zip", "words", "head", "garbage", "half", "page loop", "nested arrays"],
)
def test_what_is_no_whole_pdf_is_torn_and_says_why(data: bytes) -> None:
    read = refused(data)
    assert read.reason == "torn" and read.detail
    if not data.startswith(b"%PDF"):
        assert "not a PDF" in read.detail


def test_a_defect_that_can_be_got_over_is_got_over() -> None:
    lost = TWO_PAGES.replace(b"/Root 1 0 R", b"/Root 3 0 R").replace(b"startxref\n", b"startxref\n1")
    assert pdf_text(lost) == ("", TEXT)


@pytest.mark.parametrize("megabytes", [30, 1100])
@pytest.mark.timeout(60)
def test_a_page_that_inflates_beyond_all_measure_is_too_large(megabytes: int) -> None:
    data = pdf(bomb(megabytes))
    assert len(data) < 10_000
    assert refused(data).reason == "too large"


@pytest.mark.timeout(60)
def test_a_bomb_inside_a_form_gives_no_text_and_fills_nothing() -> None:
    data = pdf(stream(b"/X Do"), form=bomb(1100, b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]"))
    assert refused(data).reason in ("no text", "too large")


@pytest.mark.timeout(60)
def test_a_page_that_would_be_drawn_for_hours_ends_at_the_deadline() -> None:
    head = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /Font << /F 3 0 R >> >>"
    form = stream(b"BT /F 9 Tf (a) Tj ET " + b"0 0 m " * 20_000, head)
    with pytest.raises(Unreadable, match="too large: it took too long: 0 pages were read"):
        pdf_text(pdf(stream(b"/X Do " * 5000), form=form), seconds=1)


def test_text_without_end_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHARACTERS", 20)
    with pytest.raises(Unreadable, match="too large: it has more than 20 characters"):
        pdf_text(TWO_PAGES)


@settings(max_examples=150)
@given(st.integers(9, len(TWO_PAGES)), st.binary(max_size=12), st.booleans())
def test_damage_anywhere_raises_nothing(place: int, damage: bytes, cut: bool) -> None:
    data = TWO_PAGES[:place] + damage + (b"" if cut else TWO_PAGES[place + len(damage) :])
    assert isinstance(read_bytes(data, "a.pdf", "file:///a"), IncomingDocument | SkippedDocument)
