"""HTML into Markdown: what a reader of the page would keep, and nothing that hangs or overflows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evervec.domain.documents.document import IncomingDocument
from evervec.sources.files.readers.document import read_bytes
from evervec.sources.files.readers.html import html_markdown
from evervec.sources.files.readers.html_strip import strip_raw_parts

PAGE = """<!DOCTYPE html>
<html><head><title> Retrying
 jobs </title><style>p { color: red }</style><script>if (a < b) { document.write("<!-- <h1>") }</script></head>
<body><nav><ul><li><a href="/">Home</a></ul></nav>
<h1 id="top">Retrying<a class="headerlink" href="#top">¶</a></h1>
<p>A job that <b>failed</b> is <a href="https://example.org/retry">tried again</a> by <code>max_tries</code>.<br>
Then it rests.<!-- not this --></p>
<h2>Steps</h2>
<ol><li>Wait<li>Try<ul><li>once<li>twice</ul></ol>
<table><tr><th>Try<th>Delay<tr><td>1<td>2 s</table>
<img src="/a.png" alt="a queue of jobs">
<div class="highlight-python notranslate"><div class="highlight"><pre><span>def</span> f():
    return "```"
</pre></div></div>
<noscript>Switch it on</noscript><svg><title>icon</title><text>drawn</text></svg><template><p>later</p></template>
</body></html>
"""

MARKDOWN = """# Retrying

A job that failed is tried again by `max_tries`.\x20\x20
Then it rests.

## Steps

1. Wait
1. Try
   - once
   - twice

| Try | Delay |
| --- | --- |
| 1 | 2 s |

a queue of jobs

````python
def f():
    return "```"
````"""


def markdown(html: str) -> str:
    return html_markdown(html)[1].strip()


def test_a_page_is_what_its_reader_sees() -> None:
    assert html_markdown(PAGE) == ("Retrying jobs", MARKDOWN, "markdown")


@pytest.mark.parametrize(
    ("html", "title"),
    [
        ("<title>One</title><h1>Two</h1>", "One"),
        ("<h1>Two <em>and</em> three</h1>", "Two and three"),
        ("<svg><title>icon</title></svg><h1>C#</h1>", "C#"),
        ("<title></title><h1>Two</h1>", "Two"),
        ("<p>none</p>", ""),
    ],
)
def test_the_title_is_that_of_the_page_or_its_first_heading(html: str, title: str) -> None:
    assert html_markdown(html)[0] == title


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<head><title>x</title><h1>No end of the head</h1>", "# No end of the head"),
        ("<p>one<p>two<h2>three</h2>four", "one\n\ntwo\n\n## three\n\nfour"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\n:   b\n\nc\n:   d"),
        ("<div>never <span>closed <h2>head", "never closed\n\n## head"),
        ("1 < 2 and <b>3 > 2", "1 < 2 and 3 > 2"),
        ("a</nosuch> b &amp; & &nosuch &#x41;", "a b & & &nosuch A"),
        ("text <!-- never ends <p>more", "text never ends\n\nmore"),
        ("text <<!--x-->script> more", "text <script> more"),
        ("text <script>var never = 1; <p>ends", "text"),
        ("text <a href=", "text <a href="),
        ("<ul><li></li><li>a</li><li> </li></ul>", "- a"),
        ("<pre></pre><p>a</p><pre>  b\r\n</pre>", "a\n\n```\n  b\n```"),
        ("<ol start=99999><li>x</ol><ol start=²><li>y</ol>", "1. x\n\n1. y"),
    ],
)
def test_html_that_leaves_out_or_breaks_off(html: str, expected: str) -> None:
    assert markdown(html) == expected


def test_a_step_put_into_a_numbered_list_changes_no_other_line() -> None:
    before = markdown("<ol>" + "".join(f"<li>step {n}</li>" for n in range(50)) + "</ol>").split("\n")
    after = markdown("<ol><li>new</li>" + "".join(f"<li>step {n}</li>" for n in range(50)) + "</ol>").split("\n")
    assert after == ["1. new", *before]


def test_a_table_of_thousand_columns_each_is_bounded() -> None:
    text = markdown("<table>" + "<tr><td colspan=1000>cell</td></tr>" * 3000 + "</table>")
    assert text.count("cell") == 3000 and len(text) < 500_000


N = 50_000


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 100_000 + "end",
        "<b><i>" * N + "end",
        "<ul><li>" * N + "end",
        "<table><tr><td>" * N + "end",
        "<blockquote>" * 95 + "<pre>" + "a\n" * 200_000 + "end",
        "end" + "<a href=" * N,
        "end" + "<a b='" * N,
        "end" + "<!--" * N,
        "end" + "<!-- >" * N,
        "end" + "<![CDATA[" * N,
        "end" + "<?" * N,
        "end" + "<style>" * N,
        "end" + "<script></" * N,
        "end" + "</div>" * N,
        "end" + "&" * N,
    ],
)
@pytest.mark.timeout(60)
def test_hostile_html_takes_seconds_and_says_what_it_says(html: str) -> None:
    assert "end" in html_markdown(html)[1]


def test_what_nests_too_deep_is_read_as_plain_text() -> None:
    read = read_bytes(b"<title>Deep</title>" + b"<div>" * 100_000 + b"<p>one<p>two", "a.html", "file:///a")
    assert read == IncomingDocument("file:///a", "Deep", "one\ntwo", "plain")


def test_utf_16_can_not_be_declared_in_ascii() -> None:
    page = '<meta charset="utf-16"><title>café</title>'.encode("latin-1")
    for data in (page, page + b"<p>"):  # of even and odd length
        assert read_bytes(data, "a.html", "u:a") == IncomingDocument("u:a", "café", "", "markdown")


@pytest.mark.parametrize("html", [f"<h{'9' * 5000}>text", "<table><tr><td colspan=²>text</table>"])
def test_numbers_that_are_none_cost_the_markup_not_the_text(html: str) -> None:
    assert html_markdown(html) == ("", "text", "plain")


def test_a_declared_charset_is_believed_before_a_guess() -> None:
    page = '<meta charset="iso-8859-2"><title>Mało</title>'
    assert read_bytes(page.encode("iso8859_2"), "a.html", "u:a") == IncomingDocument("u:a", "Mało", "", "markdown")


def test_a_declared_charset_is_followed_where_it_is_not_utf_8() -> None:
    page = '<meta charset="windows-1251"><title>Да</title><p>Нет'
    assert read_bytes(page.encode("cp1251"), "a.html", "u:a") == IncomingDocument("u:a", "Да", "Нет", "markdown")
    assert read_bytes(page.encode(), "a.html", "u:a") == IncomingDocument("u:a", "Да", "Нет", "markdown")


MARKUP = (
    "<p> </p> <ul> <ol> <li> </ul> <table> <tr> <td> <pre> <code> </pre> <h1> </h1> <h9> <a> <!-- --> <! < > <script> "
    "</script> <![x <?x & &#0; &#xD800; <svg> <title> </svg> <br/> </ <ol/start=x> <img/alt=y> text"
)
TAGS = st.sampled_from(MARKUP.split())


@settings(max_examples=300)
@given(st.lists(TAGS | st.text(max_size=5), max_size=40).map("".join))
def test_no_markup_raises(html: str) -> None:
    assert isinstance(html_markdown(html)[1], str)


@given(st.lists(TAGS, max_size=40).map("".join))
def test_nothing_is_left_that_the_parser_would_look_for_the_end_of(html: str) -> None:
    left = strip_raw_parts(html)
    assert "<!" not in left and "<?" not in left and "<script" not in left
    assert "<" not in left[left.rfind(">") + 1 :]
