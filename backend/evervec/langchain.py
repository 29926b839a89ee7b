"""Evervec for LangChain (`pip install 'evervec[langchain]'`): a vector store of documents, and a retriever of rows of any kind.

Texts are embedded by the provider of their dataset, so neither takes an `Embeddings` of LangChain.
"""

import builtins
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

from evervec.errors import Refused, UnknownDatasetError, UnknownProjectError
from evervec.extras import extra
from evervec.library.blocking import SyncSemanticCore
from evervec.library.core import SemanticCore
from evervec.library.documents import LibraryDocument
from evervec.store.embeddings.hits import SearchHit

with extra("langchain", "The vector store for LangChain"):
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from pydantic import ConfigDict

if TYPE_CHECKING:
    from evervec.domain.conditions.reading import Given

Scored = list[tuple[Document, float]]
T = TypeVar("T")


class EvervecVectorStore(VectorStore):
    """The documents of a dataset. A document that is longer than a chunk is found by its best chunk, and returned whole.

    Its methods block in any thread, those that begin with `a` are awaited. With `mode="sync"` a document is found as soon as
    it was added; with `async` workers or a batch job embed it. Raises what `SemanticCore` raises.
    """

    def __init__(
        self,
        core: SemanticCore | SyncSemanticCore,
        *,
        dataset: str | None = None,
        project: str | None = None,
        mode: str = "sync",
    ) -> None:
        self._core = core._core if isinstance(core, SyncSemanticCore) else core
        self._where = {"project": project or self._core._project, "dataset": dataset or self._core._dataset}
        self._mode = mode

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        """Write texts, each under its id or a new one, and return the ids; one that is there is replaced, with its metadata."""
        given = list(texts)
        named = [one or str(uuid4()) for one in (ids or [None] * len(given))]
        said = metadatas or [{} for _ in given]
        if not len(given) == len(named) == len(said):
            raise Refused(
                reason=f"There are {len(given)} texts, {len(named)} ids and {len(said)} metadatas: give one for each."
            )
        documents = [
            LibraryDocument.from_text(uri, text, metadata=metadata)
            for uri, text, metadata in zip(named, given, said, strict=True)
        ]
        await self._core.ingest(documents, mode=self._mode, **self._where)
        return named

    async def adelete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Delete documents by their ids; return whether all of them were there. Raises `Refused` without ids."""
        if ids is None:
            raise Refused(reason="Name the documents to delete by their ids; `evervec` deletes whole datasets.")
        try:
            return await self._core.delete(ids, **self._where) == len(set(ids))
        except UnknownDatasetError:
            return not ids

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that are there, in the order of their ids."""
        try:
            found = {one.uri: one for one in await self._core.get_many(ids, **self._where)}
        except UnknownDatasetError:
            return []
        return [
            Document(id=uri, page_content=found[uri].text, metadata=found[uri].metadata) for uri in ids if uri in found
        ]

    async def asimilarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  # LangChain's word
        where: "Given | None" = None,
        **how: Any,
    ) -> Scored:
        """Return the k documents nearest to a text with their cosine similarities, best first.

        `filter` are values that metadata has; `where` is a condition as `SemanticCore.search` takes it, `how` are its other
        options (`engine`, `fresh`, `min_watermark`).
        """
        options: dict[str, Any] = {"mode": "vector", **how, **self._where, "where": _condition(filter, where)}
        try:
            hits = await self._core.search(query, k, **{**options, "kind": "chunk", "by_document": True})
        except (UnknownDatasetError, UnknownProjectError):
            return []
        scores = {hit.place.document: hit.score for hit in hits if hit.place is not None}
        documents = await self.aget_by_ids(list(scores))
        return [(one, scores[one.id]) for one in documents if one.id is not None]

    async def asimilarity_search(self, query: str, k: int = 4, **how: Any) -> list[Document]:
        """Return the k documents nearest to a text, as `asimilarity_search_with_score` does."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **how)]

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **how: Any,
    ) -> list[str]:
        """Write texts as `aadd_texts` does."""
        return self._blocking(partial(self.aadd_texts, texts, metadatas, ids=ids, **how))

    def delete(self, ids: list[str] | None = None, **how: Any) -> bool:
        """Delete documents as `adelete` does."""
        return self._blocking(partial(self.adelete, ids, **how))

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return documents as `aget_by_ids` does."""
        return self._blocking(partial(self.aget_by_ids, ids))

    def similarity_search_with_score(self, query: str, k: int = 4, **how: Any) -> Scored:
        """Return documents with scores as `asimilarity_search_with_score` does."""
        return self._blocking(partial(self.asimilarity_search_with_score, query, k, **how))

    def similarity_search(self, query: str, k: int = 4, **how: Any) -> list[Document]:
        """Return documents as `asimilarity_search` does."""
        return self._blocking(partial(self.asimilarity_search, query, k, **how))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: min(1.0, max(0.0, score))

    def _blocking(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._core._opening.block(call)

    @classmethod
    def from_texts(
        cls,
        texts: builtins.list[str],
        embedding: Embeddings | None = None,
        metadatas: builtins.list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        core: SemanticCore | SyncSemanticCore | None = None,
        **where: Any,
    ) -> Self:
        """Make a store over a `core`, and write texts. Raises `Refused` for an `embedding`: the dataset's provider embeds."""
        if embedding is not None or core is None:
            raise Refused(
                reason="The provider of the dataset embeds, not LangChain: give embedding=None, and a `core` "
                "(SemanticCore or SyncSemanticCore)."
            )
        store = cls(core, **where)
        store.add_texts(texts, metadatas, ids=ids)
        return store


class EvervecRetriever(BaseRetriever):
    """Rows of any kind as documents: messages, topics, atoms, chunks, rows of attached tables.

    `page_content` is the row's text; `metadata` has `kind`, `row_id`, `dataset` and `score`, what the hit says of its place,
    and the metadata of its document.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    core: Any
    k: int = 4
    project: str | None = None
    dataset: str | None = None
    kind: str | None = None
    where: Any = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> builtins.list[Document]:
        core = self._asynchronous()
        found: builtins.list[Document] = core._opening.block(partial(self._found, query))
        return found

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> builtins.list[Document]:
        return await self._found(query)

    async def _found(self, query: str) -> builtins.list[Document]:
        scope: dict[str, Any] = {
            "project": self.project,
            "dataset": self.dataset,
            "kind": self.kind,
            "where": self.where,
        }
        return [_row(hit) for hit in await self._asynchronous().search(query, self.k, **scope)]

    def _asynchronous(self) -> SemanticCore:
        core: SemanticCore = self.core._core if isinstance(self.core, SyncSemanticCore) else self.core
        return core


def _row(hit: SearchHit) -> Document:
    metadata: dict[str, Any] = dict(hit.metadata or {})
    for said in (hit.place, hit.origin):
        metadata |= {} if said is None else vars(said)
    metadata |= {} if hit.table is None else {"table": hit.table, "key": hit.key, **(hit.fields or {})}
    metadata |= {"kind": hit.kind, "row_id": hit.id, "dataset": hit.dataset, "score": hit.score}
    return Document(id=f"{hit.kind}/{hit.id}", page_content=hit.text, metadata=metadata)


def _condition(values: Mapping[str, Any] | None, where: "Given | None") -> "Given | None":
    """Return both conditions as one: the values that metadata has, and the other one."""
    from evervec.domain.conditions.reading import read

    equal: list[Any] = [
        {"op": "eq", "field": f"metadata.{name}", "value": value} for name, value in (values or {}).items()
    ]
    if not equal:
        return where
    wanted = read({"op": "and", "of": equal} if len(equal) > 1 else equal[0])
    return wanted if where is None else wanted & read(where)
