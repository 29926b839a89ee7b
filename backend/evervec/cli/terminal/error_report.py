"""Errors on the command line: one line that says what to do, and an exit code.

Never a traceback, unless EVERVEC_LOG_LEVEL=DEBUG asks for it.
"""

import asyncio
import errno
import logging
import os
import tempfile
import traceback
from collections.abc import Iterator

from rich.text import Text

from evervec.cli.terminal import output
from evervec.errors import EvervecError

INTERRUPTED = 130
ADVICE = {
    errno.ENOSPC: "The disk is full. Free some space and run this again; what is committed is safe.",
    errno.EDQUOT: "This user's share of the disk is used up. Free some space and run this again.",
    errno.EACCES: "Give this user access to it, or run as the user who has.",
    errno.EPERM: "Give this user access to it, or run as the user who has.",
    errno.EROFS: "It is on a read-only file system: choose another place.",
    errno.EMFILE: "Too many files are open: raise the limit (`ulimit -n`).",
    errno.ENOMEM: "The machine is short of memory. Close something and run this again.",
}


def report(error: BaseException) -> int:
    """Print on stderr what went wrong and return the exit code: 1, or 2 if the command was used in a wrong way."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        output.err.print(Text("".join(traceback.format_exception(error))), soft_wrap=True)
    codes = [_tell_one(leaf) for leaf in _leaves(error)]
    return codes[0] if len(set(codes)) == 1 else 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _tell_one(error: BaseException) -> int:
    match error:
        case EvervecError():
            output.error(str(error))
            return error.exit_code
        case KeyboardInterrupt() | asyncio.CancelledError():
            output.info("Interrupted. What is committed stays; run the command again to continue.")
            return INTERRUPTED
        case OSError():
            output.error(_about_system(error))
        case MemoryError():
            output.error(f"{ADVICE[errno.ENOMEM]} What is committed is safe.")
        case _:
            output.error(_about_bug(error))
    return 1


def _about_system(error: OSError) -> str:
    names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = error.strerror or str(error) or type(error).__name__
    advice = ADVICE.get(error.errno or 0, "EVERVEC_LOG_LEVEL=DEBUG shows where it happened.")
    return f"{names}: {what}. {advice}" if names else f"{what}. {advice}"


def _about_bug(error: BaseException) -> str:
    """Describe a bug; its traceback is stored at once, since the bug may not come back when the command is run again."""
    message = str(error).partition("\n")[0]
    what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    path = _store("".join(traceback.format_exception(error)))
    where = f"Its traceback is in {path}; please report it." if path else "Run it again with EVERVEC_LOG_LEVEL=DEBUG."
    return f"this is a bug in Evervec ({what}). {where} What is committed is safe."


def _store(text: str) -> str | None:
    try:
        number, path = tempfile.mkstemp(prefix="evervec-bug-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:
        return None
    return path
