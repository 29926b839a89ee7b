"""A process that opens the stack, says so in one line of JSON, and keeps it until its standard input is closed.

Usage: holder.py HOME [--as-nobody] [--supervise]
"""

import asyncio
import json
import os
import pwd
import sys
from pathlib import Path

from evervec.settings import Settings
from evervec.stack import Stack, open_stack


async def main(home: str, options: list[str]) -> None:
    if "--as-nobody" in options:
        _become_nobody()
    done = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), done.set)
    async with open_stack(Settings(home=Path(home))) as stack:
        sys.stdout.write(json.dumps(_description(stack)) + "\n")
        sys.stdout.flush()
        await (stack.supervise(done) if "--supervise" in options else done.wait())


def _description(stack: Stack) -> dict[str, object]:
    return {"database": stack.urls.database_url, "nats": stack.urls.nats_url, "uid": os.geteuid()}


def _become_nobody() -> None:
    """Switch to nobody after the imports: the interpreter itself may be in a folder that only root can enter."""
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
