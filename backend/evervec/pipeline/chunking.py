"""Documents are chunked for the space of their dataset and written with their chunks: the one place where text becomes chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from evervec.domain.documents.chunking import CHUNKING, ChunkDraft, Recipe, chunk, chunk_whole
from evervec.domain.documents.document import IncomingDocument
from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.resources import Resources
from evervec.store import datasets, documents
from evervec.store.batch import batch_queue
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef
from evervec.store.documents import WriteResult
from evervec.store.providers import Provider
from evervec.store.schema.embeddables import CHUNK

ChunkedDocument = tuple[IncomingDocument, Sequence[ChunkDraft]]


class DatasetGone(Exception):
    """The dataset was deleted meanwhile: nothing is written any more, and that is no error."""


@dataclass(frozen=True)
class Chunker:
    """The recipe of a space, and the provider whose tokenizer counts for it."""

    provider: Provider
    recipe: Recipe
    clients: ProviderClients

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of texts, with the tokenizer of the space's model where that is installed."""
        return self.clients.embedder(self.provider).count_tokens(texts)

    def chunk(self, documents: Sequence[IncomingDocument]) -> list[tuple[IncomingDocument, list[ChunkDraft]]]:
        """Chunk documents. Blocks for seconds where there are megabytes: call it in a thread."""
        whole = chunk_whole(documents, self.recipe, self.count_tokens)
        return [(one, self._chunk(one) if only is None else [only]) for one, only in zip(documents, whole, strict=True)]

    def warm_up(self) -> None:
        """Load what reading and chunking need, before the first document comes. Blocks for about a second."""
        from evervec.sources.files.readers.document import read_bytes

        document = read_bytes(b"# Warm\n\nup\n", "warm.md", "file:///warm.md")
        if isinstance(document, IncomingDocument):
            self._chunk(document)

    async def write(
        self, tx: Tx, dataset_id: UUID, chunked: Sequence[ChunkedDocument], *, batch_hours: float | None = None
    ) -> WriteResult:
        """Replace documents of a dataset, each with its chunks. Raises `DatasetGone`.

        With `batch_hours` the chunks to embed are left to batch jobs for so long.
        """
        await lock_dataset(tx, dataset_id)
        written = await documents.replace(tx, dataset_id, chunked, CHUNKING, self.provider.space.id)
        if batch_hours is not None:
            written.batched = await batch_queue.mark(tx, CHUNK, list(written.pending), hours=batch_hours)
        return written

    def _chunk(self, document: IncomingDocument) -> list[ChunkDraft]:
        from evervec.sources.structure import blocks  # half a second to load the grammars, which only chunking needs

        outline = blocks(document.text, document.format)
        return chunk(document, outline, self.recipe, self.count_tokens)


async def default(resources: Resources) -> Chunker:
    """Return the chunker of the space that new datasets get. Raises `Refused` if nobody embeds for it."""
    return for_provider(resources, await resources.provider())


async def of_dataset(resources: Resources, dataset: DatasetRef, *, space_id: int | None = None) -> Chunker:
    """Return the chunker of a dataset, for the space that is searched or another of it. Raises `NoProviderError`."""
    return for_provider(resources, await resources.provider_of(dataset, space_id=space_id))


async def by_id(resources: Resources, dataset_id: UUID) -> Chunker:
    """Return the chunker of a live dataset; of one that does not exist, that of the default space. Raises `NoProviderError`."""
    async with resources.database.read() as tx:
        dataset = await datasets.by_id(tx, dataset_id)
    return await default(resources) if dataset is None else await of_dataset(resources, dataset)


class Chunkers:
    """The chunkers of several datasets, each found when it is first needed."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._found: dict[UUID, Chunker] = {}

    async def of(self, dataset_id: UUID) -> Chunker:
        """Return the chunker of a dataset. Raises `NoProviderError`."""
        if dataset_id not in self._found:
            self._found[dataset_id] = await by_id(self._resources, dataset_id)
        return self._found[dataset_id]


def recipe(template: str, chunk_tokens: int) -> Recipe:
    """Return how chunks are made. Raises `Refused` for a template that can not be used, or too few tokens."""
    return Recipe(template, chunk_tokens)


def for_provider(resources: Resources, provider: Provider) -> Chunker:
    """Return the chunker for the space that a provider is given with."""
    space = provider.space
    most = space.chunk_tokens if space.text_tokens is None else min(space.chunk_tokens, space.text_tokens)
    return Chunker(provider, Recipe(space.template, most), resources.clients)


async def lock_dataset(tx: Tx, dataset_id: UUID) -> None:
    """Prevent the deletion of a dataset until the transaction ends. Raises `DatasetGone` if it is already deleted."""
    if not await documents.lock_live_dataset(tx, dataset_id):
        raise DatasetGone
