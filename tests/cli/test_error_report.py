"""What errors become: one line, an exit code, and never a traceback."""

import asyncio
import errno
import logging
import re
import ssl
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from evervec.cli.commands import version as commands
from evervec.cli.terminal import error_report
from evervec.errors import DatabaseDownError, DatabaseRefusedError, Refused, StackError
from evervec.pipeline.status import overview
from evervec.store.database.refusals import translate
from tests.cli.command import Command


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Refused(reason="no [bold] way"), 2, "error: no [bold] way"),
        (StackError(reason="it is broken"), 1, "error: it is broken"),
        (
            ExceptionGroup("two", [Refused(reason="one"), ExceptionGroup("in", [Refused(reason="two")])]),
            2,
            "error: two",
        ),
        (ExceptionGroup("mixed", [Refused(reason="one"), StackError(reason="two")]), 1, "error: one"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, "/data/x: No space left on device. The disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 1, "Give this user access to it"),
        (OSError("something odd"), 1, "something odd. EVERVEC_LOG_LEVEL=DEBUG"),
        (MemoryError(), 1, "short of memory"),
        (KeyboardInterrupt(), 130, "Interrupted. What is committed stays"),
        (asyncio.CancelledError(), 130, "Interrupted."),
    ],
)
def test_an_error_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    assert error_report.report(error) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""
    assert "Traceback" not in said.err


def test_a_bug_says_so_and_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ZeroDivisionError("division by zero\nsecond line")
    except ZeroDivisionError as error:
        assert error_report.report(error) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: this is a bug in Evervec (ZeroDivisionError: division by zero).")
    assert said.count("\n") == 1
    kept = re.search(r"in (/\S+evervec-bug-\w+\.txt)", said)
    assert kept is not None
    path = Path(kept[1])
    assert "test_a_bug_says_so" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    path.unlink()


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]  # what setLevel does besides
    try:
        error_report.report(Refused(reason="no way"))
    finally:
        monkeypatch.undo()
        logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    assert "evervec.errors.Refused: no way" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "The disk is full"),
        (ExceptionGroup("g", [PermissionError(errno.EACCES, "Permission denied", "/data")]), 1, "/data: Permission"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_whatever_a_command_raises_ends_in_a_line(
    evervec: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(overview, "status", fails)
    done = evervec("status", "--json")
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    done.tidy()


def test_what_fails_outside_of_the_runtime_ends_in_a_line(evervec: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", "METADATA")

    monkeypatch.setattr(commands, "installed", fails)
    evervec("version").refused("METADATA: Permission denied", code=1)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (asyncpg.InvalidPasswordError('password authentication failed for user "x"'), DatabaseRefusedError, "password"),
        (asyncpg.InsufficientPrivilegeError("permission denied for table x"), DatabaseRefusedError, "Grant"),
        (asyncpg.DiskFullError("could not extend file"), DatabaseRefusedError, "Free space"),
        (asyncpg.TooManyConnectionsError("too many clients already"), DatabaseRefusedError, "EVERVEC_POOL_SIZE"),
        (asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT"), DatabaseRefusedError, "primary"),
        (asyncpg.QueryCanceledError("canceling statement due to statement timeout"), DatabaseRefusedError, "timeout"),
        (asyncpg.AdminShutdownError("terminating connection"), DatabaseDownError, "does not answer"),
        (asyncpg.CannotConnectNowError("the database system is starting up"), DatabaseDownError, "starting up"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), DatabaseDownError, "Connection refused"),
        (ConnectionError("PostgreSQL server at x rejected SSL upgrade"), DatabaseRefusedError, "sslmode"),
        (ssl.SSLCertVerificationError("self-signed certificate"), DatabaseRefusedError, "sslmode"),
        (TimeoutError(), DatabaseDownError, "TimeoutError"),
    ],
)
def test_what_the_database_refuses_says_what_to_do(error: Exception, kind: type[Exception], words: str) -> None:
    found = translate(error, "postgresql://host/x")
    assert type(found) is kind
    assert words in str(found)
    assert "postgresql://host/x" in str(found)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.PostgresSyntaxError("syntax error"),
        asyncpg.UniqueViolationError("duplicate key"),
        asyncpg.DataError("bad"),
    ],
)
def test_a_mistake_in_our_own_sql_is_no_excuse_of_the_server(error: Exception) -> None:
    assert translate(error, "postgresql://host/x") is None
