"""One row: what is known of it, whatever state it is in."""

from hashlib import sha256
from typing import Any

import httpx
import pytest

from evervec.errors import Refused, UnknownRowError
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import row
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import ATOM, EMBEDDABLES, MESSAGE, Embeddable
from evervec.web.app import create_app
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.store.planting import plant


@pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda one: one.name)
async def test_a_row_of_any_kind_tells_its_text_its_vector_and_its_neighbours(
    resources: Resources, dataset: DatasetRef, psql: Any, embeddable: Embeddable
) -> None:
    ids = [await plant(psql, embeddable, dataset.id, f"text {n}") for n in range(4)]
    report = await row.one(resources, embeddable.name, ids[1])
    assert ([one.state for one in report.records], report.neighbours) == (["pending"], [])
    await embed_dataset(resources, dataset.id)
    report = await row.one(resources, embeddable.name, ids[1], k=2)
    assert (report.project, report.row.id, report.row.text, report.row.dataset) == ("river", ids[1], "text 1", "log")
    (record,) = report.records
    assert (record.state, record.searched, record.model) == ("ready", True, "embedder")
    assert record.content_hash == sha256(b"text 1").hexdigest()
    assert record.embedded_at is not None
    assert len(report.neighbours) == 2 and ids[1] not in {one.id for one in report.neighbours}


async def test_a_failed_row_says_why_and_an_atom_what_it_was(
    resources: Resources, dataset: DatasetRef, psql: Any, fake: FakeProvider
) -> None:
    row_id = await plant(psql, MESSAGE, dataset.id, "poison")
    fake.always(lambda text: text == "poison", Fault.BAD_REQUEST_400)
    await embed_dataset(resources, dataset.id)
    (record,) = (await row.one(resources, "message", row_id)).records
    assert record.state == "failed" and record.reason
    atom = await plant(psql, ATOM, dataset.id, "as it is now")
    for version, text in ((1, "as it was"), (2, "as it is now")):
        await psql.execute(
            "INSERT INTO atom_versions (atom_id, version, type, title, content, confidence) "
            "VALUES ($1, $2, 'insight', 't', $3, 0.5)",
            atom,
            version,
            text,
        )
    versions = (await row.one(resources, "atom", atom)).versions
    assert [(one.version, one.text) for one in versions] == [(2, "as it is now"), (1, "as it was")]


async def test_a_row_that_is_not_there_is_told_and_so_is_a_kind(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    row_id = await plant(psql, MESSAGE, dataset.id, "here")
    transport = httpx.ASGITransport(create_app(resources))
    async with httpx.AsyncClient(transport=transport, base_url="http://evervec") as client:
        found = await client.get(f"/v1/rows/message/{row_id}")
        assert (found.status_code, found.json()["row"]["text"]) == (200, "here")
        for path, status in ((f"message/{row_id + 1}", 404), ("mesage/1", 422), ("message/0", 422), ("message/x", 422)):
            assert (await client.get(f"/v1/rows/{path}")).status_code == status, path
    with pytest.raises(Refused, match="no kind 'mesage'"):
        await row.one(resources, "mesage", row_id)
    await psql.execute("UPDATE datasets SET deleted_at = now()")
    with pytest.raises(UnknownRowError):
        await row.one(resources, "message", row_id)
