"""Asks a NATS server, in its own protocol, whether it would serve a client with this token."""

import asyncio
import json

PROBE_SECONDS = 2.0


async def answers(host: str, port: int, token: str) -> bool:
    """Return whether a server at this address greets us, accepts the token and has JetStream on. Never raises."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await _handshake(reader, writer, token)
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def _handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> bool:
    verb, _, greeting = (await reader.readline()).partition(b" ")
    if verb != b"INFO" or not json.loads(greeting).get("jetstream"):
        return False
    hello = {"auth_token": token, "verbose": False, "pedantic": False, "name": "evervec-health"}
    writer.write(b"CONNECT " + json.dumps(hello).encode() + b"\r\nPING\r\n")
    await writer.drain()
    return (await reader.readline()).strip() == b"PONG"
