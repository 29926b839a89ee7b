"""The documents that a caller gives: one, several, or a stream of them."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable

from evervec.domain.documents.document import IncomingDocument
from evervec.errors import Refused

Documents = IncomingDocument | Iterable[IncomingDocument] | AsyncIterable[IncomingDocument]


async def each(documents: Documents) -> AsyncIterator[IncomingDocument]:
    """Yield the documents one by one. Raises `Refused` for what is no document."""
    if isinstance(documents, AsyncIterable):
        async for one in documents:
            yield _document(one)
    elif isinstance(documents, Iterable) and not isinstance(documents, str):
        for one in documents:
            yield _document(one)
    else:
        yield _document(documents)


def _document(given: object) -> IncomingDocument:
    if not isinstance(given, IncomingDocument):
        how = "Document.from_path(path) or Document.from_text(uri, text), or several"
        raise Refused(reason=f"{given!r:.100} is no document. Give {how}.")
    return given
