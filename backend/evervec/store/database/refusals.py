"""Translates PostgreSQL's errors, by SQLSTATE, into errors for the operator; mistakes in our own SQL are not translated."""

import ssl

import asyncpg

from evervec.errors import ConflictError, DatabaseAddressError, DatabaseDownError, DatabaseRefusedError, EvervecError

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that broke between two messages of one operation
    # the server shuts down, starts, or crashed
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)

CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)

LOG = "See the server's log for more."
ACCOUNT = "Check the user, the password and the database in EVERVEC_DATABASE_URL."
CERTIFICATE = (
    "Name the file of its authority by sslrootcert, and write the host as its certificate does; sslmode=require "
    "encrypts without proof."
)
ADVICE_BY_SQLSTATE = {
    "3D000": "Make it with `createdb`, or name another one in EVERVEC_DATABASE_URL.",
    "25006": "This server is read-only: give the address of the primary in EVERVEC_DATABASE_URL.",
    "42501": "Grant that to the user of EVERVEC_DATABASE_URL; `evervec migrate` needs the owner of the schema.",
    "53100": "Free space on the server's disk and run this again; what is committed is safe.",
    "53300": "Raise max_connections there, or lower EVERVEC_POOL_SIZE.",
    "55P03": "Another transaction holds a lock on it. Wait for its end, or end it, and run this again.",
    "57014": "A statement_timeout of the server stopped it: raise that for the user of EVERVEC_DATABASE_URL.",
    "28": ACCOUNT,
    "53": "The server is short of memory or disk; what is committed is safe.",
    "57": "Run this again; what is committed is safe.",
    "58": LOG,
    "XX": LOG,
}


def translate(error: Exception, where: str) -> EvervecError | None:
    """Return our error for one of the driver, or None for a mistake of ours."""
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return DatabaseDownError(where=where, reason="it answers, but not as target_session_attrs asks")
    if isinstance(error, ssl.SSLCertVerificationError):  # it is a ValueError, too
        return refusal(error, where, CERTIFICATE)
    if isinstance(error, ssl.SSLError) or "SSL upgrade" in str(error):
        return refusal(error, where, "Set sslmode in EVERVEC_DATABASE_URL to what the server offers.")
    if isinstance(error, UNREACHABLE) and not isinstance(error, ValueError):  # ValueError: an argument of ours
        return DatabaseDownError(where=where, reason=_reason(error))
    if isinstance(error, CONFLICTS):
        return ConflictError(reason=_reason(error))
    state = error.sqlstate or "" if isinstance(error, asyncpg.PostgresError) else ""
    advice = ADVICE_BY_SQLSTATE.get(state) or ADVICE_BY_SQLSTATE.get(state[:2])
    return refusal(error, where, advice) if advice else None


def refusal(error: Exception, where: str, advice: str = LOG) -> DatabaseRefusedError:
    """Return the error for a server that answers, and refuses."""
    return DatabaseRefusedError(where=where, reason=_reason(error), advice=advice)


def _reason(error: Exception) -> str:
    if "the underlying connection is closed" in str(error):  # the rest of the text is about the driver's internals
        return "the connection was closed in the middle"
    return str(error).partition("\n")[0].strip().rstrip(".") or type(error).__name__


def unusable_address(error: ValueError) -> DatabaseAddressError:
    """Return the error for an address that the driver can not read.

    Only the driver's own words are safe to repeat: Python's quote parts of the address, and a password may be in them.
    """
    known = isinstance(error, asyncpg.ClientConfigurationError)
    return DatabaseAddressError(
        setting="EVERVEC_DATABASE_URL", reason=str(error) if known else "its user, host and port can not be separated"
    )
