"""An attachment as it is stored becomes an open one: the database of its table, and its captures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evervec.domain.attachment import AttachedTable
from evervec.pipeline.captures.capture import Capture
from evervec.pipeline.captures.records import HomeRecords, OutboxRecords
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import Attachment
from evervec.store.attached import capture, problems
from evervec.store.attached.problems import CaptureProblem, CaptureState
from evervec.store.captures import outbox
from evervec.store.session import Database
from evervec.store.sources import SourceRecord


@dataclass(frozen=True)
class OpenAttachment:
    """An attachment whose table can be asked. `captures` are asked in their order; records of ours are always among them."""

    record: SourceRecord
    attachment: Attachment
    database: Database
    captures: Sequence[Capture]

    @property
    def is_elsewhere(self) -> bool:
        """Return whether its table is in a database that is not ours."""
        return self.record.url_encrypted is not None

    async def locate(self) -> AttachedTable | None:
        """Return its table as it is called now, None if it is gone."""
        async with self.database.read() as tx:
            return await capture.locate(tx, self.record.id, self.attachment.table)

    async def state(self) -> CaptureState:
        """Return its table as it is called now, and what is wrong with its capture."""
        schema, table = self.database.schema, self.attachment.table
        async with self.database.read() as tx:
            if not self.is_elsewhere:
                return await problems.state(tx, schema, self.record.id, table)
            found = await problems.state(tx, schema, self.record.id, table, rings=await outbox.rings(tx))
            lacking = [
                CaptureProblem(table.label, "its outbox", f"needs: {statement};", False)
                for statement in await outbox.grants(tx, schema)
            ]
        return replace(found, problems=(*found.problems, *lacking))


async def opened(resources: Resources, record: SourceRecord) -> OpenAttachment:
    """Open an attachment; whatever is opened belongs to the process. Raises what another database raises."""
    attachment = Attachment.load(record.spec)
    home = HomeRecords(resources.database, record.id)
    if record.url_encrypted is None:
        return OpenAttachment(record, attachment, resources.database, (home,))
    url = resources.unseal(record.url_encrypted)
    there = await resources.others.opened(url, attachment.description.outbox, record.id)
    return OpenAttachment(record, attachment, there, (home, OutboxRecords(there, record.id)))
