"""Reads an address into libpq's parameters: a URL or a string of keywords. Its errors repeat nothing that may be secret."""

import re
from collections.abc import Mapping
from typing import Final, NoReturn
from urllib.parse import quote, unquote_to_bytes

from evervec.errors import DatabaseAddressError
from evervec.store.address import parameters

MAIN: Final = "EVERVEC_DATABASE_URL"
DIRECT: Final = "EVERVEC_DATABASE_DIRECT_URL"
SHOWN: Final = ("host", "hostaddr", "port", "dbname", "service", "sslmode")
"""The parameters of a query that messages repeat."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCHEME: Final = re.compile(r"(postgresql|postgres)(\+[a-z0-9_]+)?")
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:/?,\[\]]*)(?::([^/?,]*))?")
_PAIR: Final = re.compile(
    r"\s*([^\s=]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'(?=\s|$)|((?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|))", re.DOTALL
)


def refuse(reason: str) -> NoReturn:
    """Raise `DatabaseAddressError`; `resolve` gives it the name of the setting."""
    raise DatabaseAddressError(setting=MAIN, reason=reason)


def parse(text: str) -> dict[str, str]:
    """Return the parameters that an address names, by libpq's keywords. An empty value stands against a PG* variable.

    Raises `DatabaseAddressError`.
    """
    if not text.strip():
        refuse("it is empty")
    url = _URL.fullmatch(text.strip())
    if url is None:
        found = _split_keywords(text)
        check(found, guarded="password=" in text and "'" not in text)
        return found
    if not _SCHEME.fullmatch(url[1]):
        refuse("it begins with something else than postgresql://")
    return _parse_url(url[2])


def check(found: Mapping[str, str], *, source: str = "", guarded: bool = False) -> None:
    """Raise `DatabaseAddressError` for a parameter that libpq does not know, or that Evervec can not honour.

    `source` says where the parameters come from if not from the address; `guarded` as in `parameters.unknown`.
    """
    for name, value in found.items():
        if not value:
            continue
        parameter = parameters.PARAMETERS.get(name)
        if parameter is None:
            refuse(source + parameters.unknown(name, guarded=guarded))
        why = parameter.check(value) if parameter.check else None
        if why:
            refuse(f"{source}{name} {why}")


def where(text: str) -> str:
    """Return an address without credentials, for messages, also if they hold an unescaped `@`, `/` or `?`."""
    text = text.strip()
    if not _URL.fullmatch(text):
        return _where_keywords(text)
    scheme, _, rest = re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1", text).rpartition("://")
    address, _, query = rest.rpartition("@")[2].partition("?")
    known = [pair for pair in query.split("&") if pair.partition("=")[0] in SHOWN]
    return f"{scheme}://{address}" + (f"?{'&'.join(known)}" if known else "")


def _where_keywords(text: str) -> str:
    try:
        found = _split_keywords(text)
    except DatabaseAddressError:
        return "an address that can not be read"
    known = [f"{name}={quote(found[name], safe='/,:.')}" for name in SHOWN if found.get(name) and name != "dbname"]
    return f"postgresql:///{quote(found.get('dbname', ''))}" + (f"?{'&'.join(known)}" if known else "")


def _parse_url(rest: str) -> dict[str, str]:
    """Read what follows `postgresql://` as libpq does: credentials end at the first `@` if that is before the first `/`."""
    found: dict[str, str] = {}
    before, at, after = rest.partition("@")
    if at and "/" not in before:
        user, _, password = before.partition(":")
        found |= {"user": _decoded(user), "password": _decoded(password)}
        rest = after
    authority = re.match(r"[^/?]*", rest)
    place = authority[0] if authority else ""
    if "@" in place:
        refuse("its user, password and host can not be separated. Percent-encode what is special in them: @ is %40")
    hosts = [_HOST.fullmatch(one) for one in place.split(",")]
    if None in hosts:
        refuse("its hosts can not be read. They are host:port, with commas between them, and IPv6 as [::1]")
    found["host"] = ",".join(_decoded(one[1].strip("[]")) for one in hosts if one)
    found["port"] = ",".join(_decoded(one[2] or "") for one in hosts if one)
    path, _, query = rest[len(place) :].partition("?")
    found["dbname"] = _decoded(path.removeprefix("/"))
    pairs = _parse_query(query)
    # an @ that was not percent-encoded after the credentials: what looks like a name may be half of a password
    check(pairs, guarded="@" in path or "@" in query)
    return {name: value for name, value in found.items() if value} | pairs


def _parse_query(query: str) -> dict[str, str]:
    found = {}
    for pair in query.split("&") if query else ():
        name, sign, value = pair.partition("=")
        if not sign:
            refuse("a parameter after its ? has no value. They are name=value, with & between them")
        found[_decoded(name)] = _decoded(value)
    return _as_libpq(found)


def _as_libpq(found: dict[str, str]) -> dict[str, str]:
    """Return the parameters with `ssl`, which libpq reads for JDBC's sake and SQLAlchemy for asyncpg's, as `sslmode`."""
    if "ssl" in found:
        given = found.pop("ssl")
        if given not in ("true", *parameters.SSL_MODES):
            refuse("ssl is none of libpq's parameters: write sslmode")
        found["sslmode"] = "require" if given == "true" else given
    return found


def _decoded(text: str) -> str:
    text = text.strip()  # as libpq does since its version 17; a space that is meant is %20
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        refuse("a % in it is not followed by two hexadecimal digits. A percent sign itself is written %25")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        refuse("what is percent-encoded in it is not UTF-8")
    if "\0" in decoded:
        refuse("it holds %00")
    return decoded


def _split_keywords(text: str) -> dict[str, str]:
    found, at, text = {}, 0, text.strip()
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None or (pair.end() < len(text) and not text[pair.end()].isspace()):
            refuse("it is neither a postgresql:// URL nor a string like host=127.0.0.1 dbname=evervec")
        found[pair[1]] = re.sub(r"\\(.)", r"\1", pair[2] if pair[2] is not None else pair[3], flags=re.DOTALL)
        at = pair.end()
    return found
