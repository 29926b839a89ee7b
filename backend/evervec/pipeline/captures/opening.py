"""An attachment as it is stored becomes an open one: the database of its table, and its captures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evervec.domain.attachment import AttachedColumn, AttachedTable
from evervec.pipeline.captures.capture import Capture
from evervec.pipeline.captures.logical import Logical
from evervec.pipeline.captures.polled import Polled
from evervec.pipeline.captures.records import HomeRecords, OutboxRecords
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import Attachment, AttachmentDescription
from evervec.store.attached import capture, problems
from evervec.store.attached.problems import CaptureProblem, CaptureState
from evervec.store.captures import outbox, slots
from evervec.store.database.session import Database, ReadTx
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

    async def waits(self) -> bool:
        """Return whether any write to its table is still to be taken in."""
        for one in self.captures:
            if await one.waits():
                return True
        return False

    async def locate(self) -> AttachedTable | None:
        """Return its table as it is called now, None if it is gone."""
        async with self.database.read() as tx:
            return await capture.locate(tx, self.record.id, self.attachment.table)

    async def state(self) -> CaptureState:
        """Return its table as it is called now, and what is wrong with its capture."""
        schema, table = self.database.schema, self.attachment.table
        async with self.database.read() as tx:
            if self.attachment.description.capture != "triggers":
                named = bool(self.attachment.description.key)
                found = await problems.shape_state(tx, self.record.id, table, named_key=named)
                return found if self.attachment.description.capture == "poll" else await self._with_slot(tx, found)
            if not self.is_elsewhere:
                return await problems.state(tx, schema, self.record.id, table)
            found = await problems.state(tx, schema, self.record.id, table, rings=await outbox.rings(tx))
            lacking = [
                CaptureProblem(table.label, "its outbox", f"needs: {statement};", False)
                for statement in await outbox.grants(tx, schema)
            ]
        return replace(found, problems=(*found.problems, *lacking))

    async def _with_slot(self, tx: ReadTx, found: CaptureState) -> CaptureState:
        slot = await slots.state(tx, self.record.id)
        if slot.problem is None:
            return found
        label = self.attachment.table.label
        return replace(found, problems=(*found.problems, CaptureProblem(label, slot.what, slot.problem, True)))


async def opened(resources: Resources, record: SourceRecord) -> OpenAttachment:
    """Open an attachment; whatever is opened belongs to the process. Raises what another database raises."""
    attachment = Attachment.load(record.spec)
    there = resources.database
    if record.url_encrypted is not None:
        url = resources.unseal(record.url_encrypted)
        there = await resources.others.opened(url, attachment.description.outbox, record.id)
    # also a table without records of ours has some here: rows to be read again, because their text could not be made
    home = HomeRecords(resources.database, record.id)
    if attachment.description.capture == "poll":
        compare_seconds = resources.settings.attached_compare_seconds
        column = poll_column(attachment.description, attachment.table)
        polled = Polled(there, record.id, attachment.table, column, record.cursor, compare_seconds)
        return OpenAttachment(record, attachment, there, (home, polled))
    if attachment.description.capture == "logical":
        most_mb = resources.settings.attached_slot_mb
        logical = Logical(resources.database, there, record.id, attachment.table, most_mb)
        return OpenAttachment(record, attachment, there, (home, logical))
    if record.url_encrypted is not None:
        return OpenAttachment(record, attachment, there, (home, OutboxRecords(there, record.id)))
    return OpenAttachment(record, attachment, there, (home,))


def poll_column(described: AttachmentDescription, table: AttachedTable) -> AttachedColumn | None:
    """Return the column with the times of changes, None if `xmin` is looked at."""
    return next((one for one in table.reads if one.name == described.poll_column), None)
