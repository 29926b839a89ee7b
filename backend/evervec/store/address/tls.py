"""The TLS of a connection, from the parameters whose names begin with `ssl`, as libpq understands them."""

import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from evervec.store.address import files
from evervec.store.address.parsing import refuse

OPTIONAL_TLS: Final = ("disable", "allow", "prefer")
"""The modes that may end without TLS: the driver decides during the handshake, and needs its own context for that."""

SYSTEM: Final = "system"

PLAIN_SOCKET: Final[Mapping[str, Any]] = {"ssl": False, "direct_tls": False}


class NamedContext(ssl.SSLContext):
    """A context that asks for, and checks, the name of the server also if its address was given (hostaddr)."""

    server_name: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Wrap a connection; asyncio calls this with the host that it connected to."""
        return super().wrap_bio(incoming, outgoing, server_side, self.server_name or server_hostname, session)


def mode(found: Mapping[str, str]) -> str:
    """Return the sslmode. Raises `DatabaseAddressError` for parameters that contradict each other."""
    from_system = found.get("sslrootcert") == SYSTEM
    named = found.get("sslmode") or ("verify-full" if from_system else "prefer")
    if from_system and named != "verify-full":
        refuse(f"sslmode={named} is too weak for sslrootcert=system: write sslmode=verify-full")
    if found.get("sslnegotiation") == "direct" and named in OPTIONAL_TLS:
        refuse(f"sslnegotiation=direct needs sslmode=require or stronger, and sslmode is {named}")
    # the driver has no channel binding; what it proves, that nobody is in between, is proved by a verified certificate
    if found.get("channel_binding") == "require" and named in OPTIONAL_TLS:
        refuse("channel_binding=require needs TLS: add sslmode=verify-full, or at least sslmode=require")
    return named


def arguments(found: Mapping[str, str], server_name: str | None) -> Mapping[str, Any]:
    """Return what `asyncpg.connect` is given for TLS over TCP. Raises `DatabaseAddressError` for an unusable file."""
    named = mode(found)
    if named == "disable":
        return PLAIN_SOCKET
    if named in OPTIONAL_TLS:
        _check_files(found)
        names = ("sslcert", "sslkey", "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version")
        given = {name: found[name] for name in names if found.get(name)}
        return {"ssl": named, "direct_tls": False, "dsn": f"postgresql://?{urlencode(given)}" if given else None}
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = server_name
    context.check_hostname = named == "verify-full"
    _trust(context, found, named)
    _identify(context, found)
    context.minimum_version = _version(found.get("ssl_min_protocol_version", "TLSv1.2"))
    if found.get("ssl_max_protocol_version"):
        context.maximum_version = _version(found["ssl_max_protocol_version"])
    if found.get("sslkeylogfile"):
        _load("sslkeylogfile", found["sslkeylogfile"], partial(setattr, context, "keylog_filename"))
    context.set_alpn_protocols(["postgresql"])
    return {"ssl": context, "direct_tls": found.get("sslnegotiation") == "direct"}


def _trust(context: ssl.SSLContext, found: Mapping[str, str], named: str) -> None:
    """Load the certificates that are trusted; `require` verifies only if there are any, as libpq does."""
    given = found.get("sslrootcert")
    path = given or _default("root.crt")
    if given == SYSTEM:
        context.load_default_certs()
    elif path and (given or files.exists(path)):
        _load("sslrootcert", path, context.load_verify_locations)
    elif named == "require":
        context.verify_mode = ssl.CERT_NONE
        return
    else:
        refuse(
            f"sslmode={named} needs the certificates to trust: name their file by sslrootcert, or write "
            "sslrootcert=system for those of the operating system"
        )
    listed = found.get("sslcrl")
    revoked = listed or _default("root.crl")
    if revoked and (listed or files.exists(revoked)):
        _load("sslcrl", revoked, context.load_verify_locations)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _identify(context: ssl.SSLContext, found: Mapping[str, str]) -> None:
    """Load the client's own certificate, if there is one."""
    certificate = found.get("sslcert") or _default("postgresql.crt")
    if found.get("sslcertmode") == "disable" or not certificate:
        return
    if not found.get("sslcert") and not files.exists(certificate):
        return
    key = found.get("sslkey") or _default("postgresql.key")
    secret = found.get("sslpassword", "")
    _load("sslcert", certificate, partial(context.load_cert_chain, keyfile=key, password=lambda: secret))


def _check_files(found: Mapping[str, str]) -> None:
    if found.get("sslcert"):
        _identify(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), found)
    for name in ("sslcertmode", "sslkeylogfile"):
        if found.get(name) not in (None, "allow"):
            refuse(f"{name} needs sslmode=require or stronger")


def _load(name: str, path: str, load: Callable[[str], None]) -> None:
    try:
        load(path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        what = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else str(error)
        beside = " or its key" if name == "sslcert" else ""
        refuse(f"{name}, {path!r},{beside} can not be used: {what}")


def _default(name: str) -> str | None:
    folder = files.home()
    return str(Path(folder) / ".postgresql" / name) if folder else None


def _version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]
