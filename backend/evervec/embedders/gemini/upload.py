"""The upload of a file to Gemini, in pieces from disk; knows nothing of its content.

https://ai.google.dev/gemini-api/docs/files, the resumable protocol: one request that begins, one for each piece.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator
from hashlib import file_digest
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx

from evervec.embedders.gemini.jobs import number
from evervec.errors import BadResponseError
from evervec.vendors.gemini.client import VERSION, GeminiClient

PIECE: Final = 8 << 20
"""Bytes of one request: each has a deadline, and the protocol wants a multiple of 256 KiB."""

BLOCK: Final = 1 << 20
"""Bytes that are read from disk at a time."""

_TAKEN: Final = 409
_START: Final = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}


async def send(client: GeminiClient, name: str, path: Path) -> bool:
    """Upload a file under a name of ours (`files/…`); return False when the name is taken. Raise a `ProviderError` subclass."""
    file = await asyncio.to_thread(path.open, "rb")
    with file:
        size = (await asyncio.to_thread(path.stat)).st_size
        begun = await client.ask(
            "POST",
            f"/upload/{VERSION}/files",
            json={"file": {"name": name, "displayName": name.removeprefix("files/")}},
            headers=_START
            | {
                "X-Goog-Upload-Header-Content-Length": str(size),
                "X-Goog-Upload-Header-Content-Type": "application/jsonl",
            },
        )
        if begun.status_code == _TAKEN:
            return False
        where, sent = _address(client, begun), 0
        while True:
            length = min(PIECE, size - sent)
            last = sent + length == size
            answer = await _send_piece(client, where, file, offset=sent, length=length, last=last)
            sent += length
            if answer.status_code == _TAKEN:
                return False
            if not answer.is_success:
                raise client.error_of(client.refusal(answer))
            if last:
                break
    stored = client.document(answer).get("file")
    if not isinstance(stored, dict) or stored.get("name") != name or number(stored.get("sizeBytes")) != size:
        raise BadResponseError(client.provider, f"the file {name} did not arrive as it was sent")
    return True


async def same(file: dict[str, Any], path: Path) -> bool:
    """Return whether a remote file has the same bytes as the one on disk. Google writes the digest's hex digits in base64."""
    if number(file.get("sizeBytes")) != (await asyncio.to_thread(path.stat)).st_size:
        return False
    digest = await asyncio.to_thread(_digest, path)
    return file.get("sha256Hash") in (b64encode(digest.hex().encode()).decode(), b64encode(digest).decode())


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()


def _address(client: GeminiClient, begun: httpx.Response) -> str:
    if not begun.is_success:
        raise client.error_of(client.refusal(begun))
    address = begun.headers.get("x-goog-upload-url")
    if not address:
        raise BadResponseError(client.provider, "the answer has no address to upload the file to")
    return client.path_of(address)


async def _send_piece(
    client: GeminiClient, where: str, file: BinaryIO, *, offset: int, length: int, last: bool
) -> httpx.Response:
    headers = {
        "Content-Length": str(length),
        "X-Goog-Upload-Offset": str(offset),
        "X-Goog-Upload-Command": "upload, finalize" if last else "upload",
    }
    # not as bytes: httpx makes a reference cycle of request and answer, which would keep every piece until the next collection
    return await client.ask("POST", where, content=_blocks(file, length), headers=headers)


async def _blocks(file: BinaryIO, length: int) -> AsyncGenerator[bytes, None]:
    """Yield the next `length` bytes of a file."""
    while length > 0 and (block := await asyncio.to_thread(file.read, min(BLOCK, length))):
        length -= len(block)
        yield block
