"""OpenAI's files: uploaded as a form, listed, downloaded and deleted."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

from aiohttp import BodyPartReader

from tests.fakes.jobs import Job
from tests.fakes.openai_errors import refused
from tests.fakes.remote_files import BLOCK, Incoming, RemoteFile
from tests.fakes.wire import Call, Reply

LIFE = timedelta(days=30)
MOST_BYTES = 200 << 20
Item = TypeVar("Item", Job, RemoteFile)


async def create(call: Call) -> Reply:
    """Take an upload: a form whose `file` is written to disk as it comes."""
    fields: dict[str, str] = {}
    incoming: Incoming | None = None
    async for part in await call.request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        if part.name != "file":
            fields[part.name or ""] = await part.text()
            continue
        _, incoming = call.fake.batches.receive({"filename": part.filename or "upload"})
        while block := await part.read_chunk(BLOCK):
            incoming.append(block)
    if incoming is None:
        raise refused(400, "'file' is a required property", param="file")
    if fields.get("purpose") != "batch":
        raise refused(400, f"'{fields.get('purpose')}' is not one of ['batch'] - 'purpose'", param="purpose")
    if incoming.size > MOST_BYTES:
        raise refused(413, f"The file has {incoming.size} bytes, {MOST_BYTES} at most for a batch.")
    file = call.fake.batches.store(incoming, None, protocol="openai", filename=incoming.wish["filename"])
    return Reply(shown(file))


def shown(file: RemoteFile) -> dict[str, Any]:
    """Return a file as the API shows it."""
    return {
        "object": "file",
        "id": file.id,
        "purpose": file.purpose,
        "filename": file.filename,
        "bytes": file.size,
        "created_at": int(file.created.timestamp()),
        "expires_at": int((file.created + LIFE).timestamp()),
        "status": "processed",
        "status_details": None,
    }


def existing(call: Call, id_: str) -> RemoteFile:
    """Return a live file. Raises `Refused`."""
    found = call.fake.batches.file(id_, "openai")
    if found is None:
        raise refused(404, f"No such File object: {id_}", param="id")
    return found


def paged(call: Call, items: Sequence[Item], *, default: int) -> tuple[Sequence[Item], bool]:
    """Return the requested page, and whether there is more after it."""
    limit, after = int(call.request.query.get("limit") or default), call.request.query.get("after")
    first = next((place for place, item in enumerate(items, 1) if item.id == after), None) if after else 0
    if first is None:
        raise refused(404, f"No such object: {after}", param="after")
    return items[first : first + limit], first + limit < len(items)


def listing(found: Sequence[Item], shown_: Sequence[dict[str, Any]], more: bool) -> Reply:
    """Return a page as the API shows it."""
    ends = {"first_id": found[0].id, "last_id": found[-1].id} if found else {"first_id": None, "last_id": None}
    return Reply({"object": "list", "data": shown_, "has_more": more} | ends)


async def listed(call: Call) -> Reply:
    """Return a page of files, newest first."""
    purpose = call.request.query.get("purpose")
    files = [file for file in reversed(call.fake.batches.files.values()) if file.protocol == "openai"]
    found, more = paged(call, [file for file in files if purpose in (None, file.purpose)], default=10_000)
    return listing(found, [shown(file) for file in found], more)


async def show(call: Call, id_: str) -> Reply:
    """Show one file."""
    return Reply(shown(existing(call, id_)))


async def content(call: Call, id_: str) -> Reply:
    """Return the bytes of a file."""
    return Reply(chunks=existing(call, id_).source)


async def delete(call: Call, id_: str) -> Reply:
    """Forget a file."""
    call.fake.batches.delete_file(existing(call, id_).id)
    return Reply({"object": "file", "id": id_, "deleted": True})
