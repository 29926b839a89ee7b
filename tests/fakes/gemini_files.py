"""Gemini's files: resumable uploads in as many pieces as the caller likes, uploads in one request, and downloads."""

import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import orjson
from aiohttp import BodyPartReader, web

from tests.fakes.gemini_errors import refused
from tests.fakes.gemini_lines import either
from tests.fakes.jobs import Job
from tests.fakes.remote_files import BLOCK, Incoming, RemoteFile
from tests.fakes.wire import Call, Reply

# the real one tells them apart by the query alone; a path of its own lets a fault mean the bytes and not the start
BYTES = "/upload/v1beta/files/bytes"
OWN_ID = re.compile(r"files/[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
Item = TypeVar("Item", Job, RemoteFile)
LIFE = timedelta(hours=48)


def is_multipart(request: web.Request) -> bool:
    """Return whether this is an upload in one request."""
    asked = (request.query.get("uploadType"), request.headers.get("X-Goog-Upload-Protocol"))
    return request.path == "/upload/v1beta/files" and "multipart" in asked


async def start(call: Call) -> Reply:
    """Begin a resumable upload, or take a whole one."""
    if is_multipart(call.request):
        return await _whole(call)
    headers = call.request.headers
    if headers.get("X-Goog-Upload-Protocol") != "resumable" or headers.get("X-Goog-Upload-Command") != "start":
        raise refused(400, "Upload protocol must be resumable (command start) or multipart.")
    wish = _announced(call, call.asked, headers.get("X-Goog-Upload-Header-Content-Type"))
    wish["size"] = headers.get("X-Goog-Upload-Header-Content-Length")
    batches = call.fake.batches
    number, incoming = batches.receive(wish)
    batches.uploads[number] = incoming
    address = f"{call.fake.url}{BYTES}?upload_id={number}&upload_protocol=resumable"
    about = {"X-Goog-Upload-URL": address, "X-Goog-Upload-Status": "active"}
    return Reply({}, headers=about | {"X-Goog-Upload-Chunk-Granularity": str(1 << 18)})


def _announced(call: Call, asked: dict[str, Any], mime_type: str | None) -> dict[str, Any]:
    """Return what the caller says about the file, checked."""
    file = asked.get("file") or {}
    name = file.get("name")
    if name is not None and not OWN_ID.fullmatch(name):
        raise refused(400, f"* CreateFileRequest.file.name: invalid name '{name}'\n")
    id_ = name and name.removeprefix("files/")
    _free(call, id_)
    mime = mime_type or either(file, "mime_type") or "application/octet-stream"
    return {"id": id_, "display_name": either(file, "display_name") or "", "mime_type": mime}


def _free(call: Call, id_: str | None) -> None:
    if id_ in call.fake.batches.files:
        raise refused(409, f"Requested entity already exists: files/{id_}")


async def receive(call: Call) -> Reply:
    """Receive the next bytes of an upload, its end, or the question how much has arrived."""
    incoming = call.fake.batches.uploads.get(call.request.query.get("upload_id", ""))
    if incoming is None:
        raise refused(404, "Upload not found: begin again.")
    if incoming.file is not None:
        return _final(incoming.file)
    commands = {word.strip() for word in call.request.headers.get("X-Goog-Upload-Command", "").split(",")}
    if "upload" in commands:
        if (offset := int(call.request.headers.get("X-Goog-Upload-Offset", "-1"))) != incoming.size:
            raise refused(400, f"Offset {offset} is not the {incoming.size} bytes that have arrived.")
        async for block in call.request.content.iter_chunked(BLOCK):
            incoming.append(block)
    if "finalize" not in commands:
        arrived = {"X-Goog-Upload-Size-Received": str(incoming.size)}
        return Reply({}, headers=arrived | {"X-Goog-Upload-Status": "active"})
    if (size := incoming.wish["size"]) is not None and int(size) != incoming.size:
        raise refused(400, f"{incoming.size} bytes have arrived, {size} were announced.")
    return _final(_store(call, incoming))


async def _whole(call: Call) -> Reply:
    """Receive an upload in one request: a JSON part about the file, then the file."""
    reader = await call.request.multipart()
    about, data = await reader.next(), None
    if isinstance(about, BodyPartReader):
        asked = orjson.loads(await about.read())
        data = await reader.next()
    if not isinstance(data, BodyPartReader):
        raise refused(400, "A multipart upload has a part of JSON and a part of data.")
    _, incoming = call.fake.batches.receive(_announced(call, asked, data.headers.get("Content-Type")))
    while block := await data.read_chunk(BLOCK):
        incoming.append(block)
    return _final(_store(call, incoming))


def _store(call: Call, incoming: Incoming) -> RemoteFile:
    wish = incoming.wish
    _free(call, wish["id"])
    about = {"filename": wish["display_name"], "mime_type": wish["mime_type"]}
    return call.fake.batches.store(incoming, wish["id"], protocol="gemini", **about)


def _final(file: RemoteFile) -> Reply:
    return Reply({"file": shown(file)}, headers={"X-Goog-Upload-Status": "final"})


def stamp(moment: datetime) -> str:
    """Return a time as Google writes it."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def shown(file: RemoteFile) -> dict[str, Any]:
    """Return a file as the API shows it."""
    document = {
        "name": f"files/{file.id}",
        "displayName": file.filename,
        "mimeType": file.mime_type,
        "sizeBytes": str(file.size),
        "createTime": stamp(file.created),
        "updateTime": stamp(file.created),
        "expirationTime": stamp(file.created + LIFE),
        "uri": f"https://generativelanguage.googleapis.com/v1beta/files/{file.id}",
        "state": "ACTIVE",
        "source": "UPLOADED" if file.path else "GENERATED",
    }
    if file.path:
        return document | {"sha256Hash": b64encode(file.sha256.encode()).decode()}
    return document | {"downloadUri": f"{document['uri']}:download?alt=media"}


def existing(call: Call, id_: str) -> RemoteFile:
    """Return a live file. Raises `Refused`."""
    found = call.fake.batches.file(id_, "gemini")
    if found is None:
        raise refused(403, f"You do not have permission to access the File {id_} or it may not exist.")
    return found


async def listed(call: Call) -> Reply:
    """Return a page of files, newest first."""
    files = [file for file in call.fake.batches.files.values() if file.protocol == "gemini"]
    found, after = paged(call, files[::-1], most=100)
    return Reply({"files": [shown(file) for file in found]} | after)


def paged(call: Call, items: Sequence[Item], *, most: int) -> tuple[Sequence[Item], dict[str, str]]:
    """Return the requested page, and the token of the next one if there is one.

    The token names an item and not a number, so that what is created meanwhile shifts nothing.
    """
    size = min(int(call.request.query.get("pageSize") or most), most)
    token = call.request.query.get("pageToken")
    first = next((place for place, item in enumerate(items, 1) if item.id == token), None) if token else 0
    if first is None:
        raise refused(400, f"Invalid page token '{token}'.")
    page = items[first : first + size]
    return page, {"nextPageToken": page[-1].id} if first + size < len(items) else {}


async def show(call: Call, id_: str) -> Reply:
    """Show one file."""
    return Reply(shown(existing(call, id_)))


async def delete(call: Call, id_: str) -> Reply:
    """Forget a file."""
    call.fake.batches.delete_file(existing(call, id_).id)
    return Reply({})


async def download(call: Call, id_: str) -> Reply:
    """Return the bytes of a file of results; an upload can not be downloaded."""
    found = call.fake.batches.file(id_, "gemini")
    if found is None:
        raise refused(404, f"Requested entity was not found: files/{id_}")
    if found.path:
        raise refused(400, "Only generated files can be downloaded.")
    if call.request.query.get("alt") != "media":
        raise refused(400, "Say alt=media to get the bytes.")
    return Reply(chunks=found.source)
