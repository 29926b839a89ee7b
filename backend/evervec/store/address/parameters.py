"""Every parameter of an address that libpq knows: its variable, what it may be, and what to do if it can not be honoured."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

Check = Callable[[str], str | None]
"""Return why a value is refused, with the next step; None if it is accepted. An empty value never gets there."""

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SESSION_ATTRS: Final = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
UNICODE: Final = ("utf8", "utf-8", "unicode", "auto")

LONGEST_SECONDS: Final = 2**31 // 1000
"""What fits in PostgreSQL's own type for a time in milliseconds."""


@dataclass(frozen=True)
class Parameter:
    """What an address may say, and where libpq finds it otherwise."""

    variable: str | None = None
    check: Check | None = None


def _one_of(*values: str) -> Check:
    return lambda value: None if value in values else f"is one of {', '.join(values)}"


def _number(value: str) -> str | None:
    return None if re.fullmatch(r" *[+-]?\d{1,9} *", value) else "is a whole number"


def _timeout(value: str) -> str | None:
    return _number(value) or (
        None if int(value) <= LONGEST_SECONDS else f"is a number of seconds, at most {LONGEST_SECONDS}"
    )


def _never(why: str) -> Check:
    return lambda _: why


def _only(*values: str, otherwise: str) -> Check:
    return lambda value: None if value.lower() in values else otherwise


def _least_protocol(value: str) -> str | None:
    return None if value == "3.0" else "can be 3.0 alone, the version that Evervec speaks. Leave it out"


_NO_OAUTH: Final = _never(
    "belongs to OAuth, which Evervec can not do. Leave it out and give a password or a certificate"
)
_NO_SCRAM_KEY: Final = _never("is not supported. Leave it out and give the password, or a passfile")

PARAMETERS: Final[Mapping[str, Parameter]] = {
    "host": Parameter("PGHOST"),
    "hostaddr": Parameter("PGHOSTADDR"),
    "port": Parameter("PGPORT"),
    "dbname": Parameter("PGDATABASE"),
    "user": Parameter("PGUSER"),
    "password": Parameter("PGPASSWORD"),
    "passfile": Parameter("PGPASSFILE"),
    "service": Parameter("PGSERVICE"),
    "servicefile": Parameter("PGSERVICEFILE"),
    "connect_timeout": Parameter("PGCONNECT_TIMEOUT", _timeout),
    "target_session_attrs": Parameter("PGTARGETSESSIONATTRS", _one_of(*SESSION_ATTRS)),
    "load_balance_hosts": Parameter("PGLOADBALANCEHOSTS", _one_of("disable", "random")),
    # of the session
    "options": Parameter("PGOPTIONS"),
    "application_name": Parameter("PGAPPNAME"),
    "fallback_application_name": Parameter(),
    # PGCLIENTENCODING is about a terminal, and Evervec always speaks UTF-8 with the server
    "client_encoding": Parameter(None, _only(*UNICODE, otherwise="can be UTF8 alone. Leave it out")),
    "replication": Parameter(
        None,
        _only("false", "off", "no", "0", otherwise="opens a connection that takes no queries. Leave it out"),
    ),
    "min_protocol_version": Parameter("PGMINPROTOCOLVERSION", _least_protocol),
    "max_protocol_version": Parameter("PGMAXPROTOCOLVERSION", _one_of("3.0", "3.2", "latest")),
    # of the socket
    "keepalives": Parameter(None, _number),
    "keepalives_idle": Parameter(None, _timeout),
    "keepalives_interval": Parameter(None, _timeout),
    "keepalives_count": Parameter(None, _number),
    "tcp_user_timeout": Parameter(None, _number),
    "requirepeer": Parameter(
        "PGREQUIREPEER",
        _never("is not supported. Leave it out and let only the server's user write in its socket's folder"),
    ),
    # of TLS
    "sslmode": Parameter("PGSSLMODE", _one_of(*SSL_MODES)),
    "sslnegotiation": Parameter("PGSSLNEGOTIATION", _one_of("postgres", "direct")),
    "sslcert": Parameter("PGSSLCERT"),
    "sslkey": Parameter("PGSSLKEY"),
    "sslpassword": Parameter(),
    "sslrootcert": Parameter("PGSSLROOTCERT"),
    "sslcrl": Parameter("PGSSLCRL"),
    "sslcrldir": Parameter(
        "PGSSLCRLDIR", _never("is not supported. Put the lists into one file and name it by sslcrl")
    ),
    "sslcertmode": Parameter(
        "PGSSLCERTMODE",
        _only("allow", "disable", otherwise="can be allow or disable: the driver can not see whether a server asks"),
    ),
    "sslcompression": Parameter("PGSSLCOMPRESSION"),  # without effect, also in libpq
    "sslsni": Parameter(
        "PGSSLSNI", _only("1", otherwise="can be 1 alone: the driver always sends the name. Leave it out")
    ),
    "sslkeylogfile": Parameter(),
    "ssl_min_protocol_version": Parameter("PGSSLMINPROTOCOLVERSION", _one_of(*TLS_VERSIONS)),
    "ssl_max_protocol_version": Parameter("PGSSLMAXPROTOCOLVERSION", _one_of(*TLS_VERSIONS)),
    # of authentication
    "channel_binding": Parameter("PGCHANNELBINDING", _one_of("disable", "prefer", "require")),
    "require_auth": Parameter(
        "PGREQUIREAUTH",
        _never("is not supported. Leave it out and use sslmode=verify-full, so that only the right server is answered"),
    ),
    "gssencmode": Parameter(
        "PGGSSENCMODE", _only("disable", "prefer", otherwise="can be disable or prefer. Encrypt by sslmode=require")
    ),
    "gssdelegation": Parameter("PGGSSDELEGATION", _only("0", otherwise="can be 0 alone. Leave it out")),
    "gsslib": Parameter("PGGSSLIB", _one_of("gssapi", "sspi")),
    "krbsrvname": Parameter("PGKRBSRVNAME"),
    "scram_client_key": Parameter(None, _NO_SCRAM_KEY),
    "scram_server_key": Parameter(None, _NO_SCRAM_KEY),
    "oauth_issuer": Parameter(None, _NO_OAUTH),
    "oauth_client_id": Parameter(None, _NO_OAUTH),
    "oauth_client_secret": Parameter(None, _NO_OAUTH),
    "oauth_scope": Parameter(None, _NO_OAUTH),
}

_POOLER: Final = "Evervec notices a pooler by itself. Leave it out"
_OTHER_PROGRAM: Final = "it is of another program. Leave it out"

STRANGERS: Final[Mapping[str, str]] = {
    "database": "write dbname",
    "db": "write dbname",
    "username": "write user",
    "passwd": "write password",
    "hostname": "write host",
    "timeout": "write connect_timeout",
    "requiressl": "write sslmode=require",
    "statement_cache_size": _POOLER,
    "prepared_statement_cache_size": _POOLER,
    "prepare_threshold": _POOLER,
    "pgbouncer": _POOLER,
    "supa": _OTHER_PROGRAM,
    "schema": _OTHER_PROGRAM,
    "connection_limit": _OTHER_PROGRAM,
    "pool_timeout": _OTHER_PROGRAM,
    "pool_size": "set EVERVEC_POOL_SIZE",
    "currentschema": _OTHER_PROGRAM,
}
"""What people write who come from another driver, and what to do with it here."""


def unknown(name: str, *, guarded: bool = False) -> str:
    """Return why a parameter is refused that libpq does not know either, with the next step.

    With `guarded` the name may be a part of a password, and is not repeated unless it is nearly that of a parameter.
    """
    if name.lower() in STRANGERS:
        return f"{name!r} is none of libpq's parameters: {STRANGERS[name.lower()]}"
    near = difflib.get_close_matches(name.lower(), PARAMETERS, n=1, cutoff=0.75)
    if near:
        return f"{name!r} is none of libpq's parameters; perhaps {near[0]!r} is meant"
    if guarded or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]{0,40}", name):
        return (
            "it has a parameter that is none of libpq's. If that is a part of the password, percent-encode it: "
            "@ is %40, / is %2F, ? is %3F"
        )
    return (
        f"{name!r} is none of libpq's parameters. If it is a setting of the server, write "
        f"options=-c%20{name}%3D… (in a URL, space and = are %20 and %3D)"
    )
