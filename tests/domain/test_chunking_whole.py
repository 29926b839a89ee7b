"""Many short texts are chunked together exactly as each would be by itself."""

from hypothesis import given, settings
from hypothesis import strategies as st

from evervec.domain.documents.chunking import LEAST_TOKENS, Recipe, chunk, chunk_whole
from evervec.domain.documents.document import IncomingDocument
from evervec.embedders.local.embedder import LocalEmbedder
from evervec.sources.structure import blocks

SMALL = Recipe(template="{title}: {heading}\n{text}", tokens=LEAST_TOKENS)
TITLES = st.sampled_from(["", "Title", "a title that is longer than its share of a chunk " * 3])
TEXTS = st.one_of(
    st.sampled_from(["", " \n", "short", "two\n\nparagraphs", "# no heading", "\n\nblank before", "x" * 300]),
    st.text(st.sampled_from("ab .\n\f#é語😀"), max_size=200),
    st.lists(st.sampled_from(["word", "another", "."]), max_size=80).map(" ".join),
)
FORMATS = st.sampled_from(["plain", "plain", "markdown"])
local = LocalEmbedder().count_tokens


@settings(deadline=None)  # the first one loads the tokenizer
@given(st.lists(st.tuples(TITLES, TEXTS, FORMATS), max_size=8))
def test_a_text_that_is_one_chunk_is_the_same_one_in_company(given_: list[tuple[str, str, str]]) -> None:
    documents = [IncomingDocument("u", title, text, format_) for title, text, format_ in given_]
    for document, only in zip(documents, chunk_whole(documents, SMALL, local), strict=True):
        alone = chunk(document, blocks(document.text, document.format), SMALL, local)
        assert (
            alone == [only]
            if only is not None
            else document.format != "plain" or len(alone) != 1 or len(alone[0].vector_text) > 8 * LEAST_TOKENS
        )


def test_many_short_rows_are_chunked_as_each_of_them_alone() -> None:
    documents = [IncomingDocument(f"t/{n}", f"t {n}", f"the river flows to the sea {n}", "plain") for n in range(2000)]
    together = chunk_whole(documents, Recipe(), local)
    alone = [chunk(one, blocks(one.text, one.format), Recipe(), local) for one in documents]
    assert [[only] for only in together] == alone
