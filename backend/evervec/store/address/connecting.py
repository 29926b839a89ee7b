"""Opens one connection to an address: its hosts in their order, as libpq does. Errors are those of the driver."""

import random
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final

import asyncpg

from evervec.store.address import tls
from evervec.store.address.address import Address, Host, resolve
from evervec.store.address.parsing import MAIN

CONNECT_SECONDS: Final = 10

NEXT_HOST: Final = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)
"""What leads to the next host; a server that refuses the user or the database ends it, as with libpq."""

SOCKET_OPTIONS: Final = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


async def connect(
    url: str,
    *,
    timeout: float = CONNECT_SECONDS,
    server_settings: Mapping[str, str] | None = None,
    setting: str = MAIN,
    **options: Any,
) -> Any:
    """Return an open `asyncpg.Connection`.

    `timeout` is for all hosts together, unless the address has a connect_timeout, which is for each. `server_settings` go
    before those of the address, `options` are asyncpg's own, such as `statement_cache_size`. It fits `create_pool(url,
    connect=connect)`, and SQLAlchemy's `async_creator`. `setting` is where the address comes from, for its errors.

    Raises `DatabaseAddressError`, and what asyncpg raises.
    """
    address = resolve(url, setting=setting)
    each = address.connect_timeout or timeout / len(address.hosts)
    options["server_settings"] = address.server_settings | dict(server_settings or {})
    last: Exception | None = None
    for host, attribute in attempts(address):
        try:
            connection = await asyncpg.connect(
                **_arguments(address, host), target_session_attrs=attribute, timeout=each, **options
            )
        except NEXT_HOST as error:
            # a server that starts is more worth to be told than one that is not there: it is worth waiting for
            last = last if isinstance(last, asyncpg.CannotConnectNowError) else error
        else:
            _keep_alive(connection, address.found)
            return connection
    if last is None:
        raise AssertionError("an address has at least one host")
    raise last


def attempts(address: Address) -> Iterator[tuple[Host, str]]:
    """Yield the hosts in the order in which they are tried, with what is asked of each."""
    hosts = list(address.hosts)
    if address.found.get("load_balance_hosts") == "random":
        random.shuffle(hosts)
    wanted = address.found.get("target_session_attrs", "any")
    for host in hosts:
        yield host, "standby" if wanted == "prefer-standby" else wanted
    if wanted == "prefer-standby":
        for host in hosts:
            yield host, "any"


def _arguments(address: Address, host: Host) -> dict[str, Any]:
    """Return what `asyncpg.connect` is given for one host: everything, so that it reads no file and no variable itself."""
    found = address.found
    secret = host.password
    return {
        "host": host.address,
        "port": host.port,
        "user": address.user,
        "database": address.database,
        "password": lambda: secret,  # a function also of None: the driver would read .pgpass again, and less exactly
        "krbsrvname": found.get("krbsrvname"),
        "gsslib": found.get("gsslib"),
        **(tls.PLAIN_SOCKET if host.is_socket else tls.arguments(found, host.name)),
    }


def _keep_alive(connection: Any, found: Mapping[str, str]) -> None:
    """Set the options of a TCP socket, so that a peer which is gone is noticed; the driver has no public way to it."""
    transport = connection._transport
    opened = transport.get_extra_info("socket")
    if opened.family not in (socket.AF_INET, socket.AF_INET6):
        return
    if int(found.get("keepalives", 1)):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in SOCKET_OPTIONS.items():
        value = int(found.get(name, 0))
        if value > 0 and hasattr(socket, option):  # 0: what the system does by itself
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
