"""How chunks are made for the active space, and documents chunked by it: the one place where text becomes chunks."""

from collections.abc import Sequence
from dataclasses import dataclass

from evervec.domain.chunking import ChunkDraft, Recipe, chunk
from evervec.domain.document import IncomingDocument
from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.resources import Resources
from evervec.store.providers import Provider


@dataclass(frozen=True)
class Chunker:
    """The active space's recipe, and whose tokenizer counts by it."""

    provider: Provider
    recipe: Recipe
    clients: ProviderClients

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of texts, by the tokenizer of the space's model where that is at hand."""
        return self.clients.embedder(self.provider).count_tokens(texts)

    def chunk(self, documents: Sequence[IncomingDocument]) -> list[tuple[IncomingDocument, list[ChunkDraft]]]:
        """Chunk documents; blocking, seconds for megabytes: call it in a thread."""
        return [(one, self._chunk(one)) for one in documents]

    def warm(self) -> None:
        """Load what reading and chunking take, before somebody waits for the first document; blocking, about a second."""
        from evervec.sources.files.readers.document import read_bytes

        document = read_bytes(b"# Warm\n\nup\n", "warm.md", "file:///warm.md")
        if isinstance(document, IncomingDocument):
            self._chunk(document)

    def _chunk(self, document: IncomingDocument) -> list[ChunkDraft]:
        from evervec.sources.structure import blocks  # half a second of grammars, for who chunks alone

        outline = blocks(document.text, document.format)
        return chunk(document, outline, self.recipe, self.count_tokens)


async def active(resources: Resources) -> Chunker:
    """The active space's. Raises `Refused` for a template that can not be used."""
    provider = await resources.provider()
    space = provider.space
    most = space.chunk_tokens if space.text_tokens is None else min(space.chunk_tokens, space.text_tokens)
    recipe = Recipe(space.template, most, f"{space.provider}/{space.model}")
    return Chunker(provider, recipe, resources.clients)
