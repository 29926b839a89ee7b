"""What a caller says of a document: carried in hits, compared by conditions, kept and changed without a new vector."""

from datetime import UTC, datetime
from typing import Any

import pytest

from evervec import Document, SemanticCore
from evervec.errors import Refused
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.indexed import versions

NESTED: dict[str, Any] = {}
for _ in range(2_000):
    NESTED = {"deeper": NESTED}


def bird(metadata: Any = None, text: str = "birds sing in the morning") -> Document:
    return Document.from_text("bird", text, metadata=metadata)


async def texts(psql: Any) -> list[Any]:
    """Return the versions of chunks and vectors: metadata writes none."""
    return [one for one in await versions(psql) if one[0] != "documents"]


async def said(core: SemanticCore) -> Any:
    return (await core.search("birds", where='uri = "bird"')).hits[0].metadata


async def test_metadata_is_carried_compared_kept_and_changed_without_a_new_vector(
    core: SemanticCore, fake: FakeProvider, psql: Any
) -> None:
    at = datetime(2026, 1, 31, tzinfo=UTC)
    soup = Document.from_text("soup", "cold soup", metadata={"lang": "de", "tags": ["food"]})
    await core.ingest([bird({"lang": "en", "at": at, "nul": "a\0b"}), soup], mode="sync")
    assert await said(core) == {"lang": "en", "at": "2026-01-31T00:00:00+00:00", "nul": "ab"}
    for where, uri in (('metadata.lang = "en"', "bird"), ('metadata.tags = "food"', "soup")):
        (hit,) = (await core.search("anything", where=where)).hits
        assert hit.place is not None
        assert hit.place.document == uri

    before, asked = await texts(psql), len(fake.texts_sent())
    for again, expected in ((None, "en"), ({"lang": "fr"}, "fr"), (None, "fr"), ({}, None)):
        done = await core.ingest(bird(again), mode="sync")
        assert (done.documents_unchanged, done.pending) == (1, 0)
        stored = await psql.fetchval("SELECT metadata ->> 'lang' FROM evervec.documents WHERE uri = 'bird'")
        assert stored == expected
    assert (await texts(psql), len(fake.texts_sent())) == (before, asked)

    await core.ingest(bird({"lang": "en"}, "birds sing at noon"), mode="sync")
    await core.ingest(bird(None, "birds sing at night"), mode="sync")
    assert await said(core) == {"lang": "en"}


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (["lang"], "Metadata is a mapping of names to values"),
        ({"lang": object()}, "can not be written as JSON"),
        ({1: "one"}, "can not be written as JSON"),
        ({"large": 2**70}, "can not be written as JSON"),
        (NESTED, "can not be written as JSON"),
        ({"long": "x" * 70_000}, "70,011 bytes as JSON, 65,536 at most"),
    ],
    ids=["list", "object", "name", "integer", "depth", "size"],
)
async def test_metadata_that_json_does_not_have_is_refused_and_nothing_is_written(
    local: SemanticCore, psql: Any, metadata: Any, reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        await local.ingest(bird(metadata))
    assert await psql.fetchval("SELECT count(*) FROM evervec.documents") == 0
