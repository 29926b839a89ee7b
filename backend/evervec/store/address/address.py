"""An address that is complete: what it says itself, its service, the PG* variables of the environment, and the defaults."""

import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from evervec.errors import DatabaseAddressError
from evervec.store.address import files, tls
from evervec.store.address.parameters import PARAMETERS
from evervec.store.address.parsing import MAIN, check, parse, refuse

PORT: Final = 5432
OWN_NAME: Final = "evervec"


@dataclass(frozen=True)
class Host:
    """One server of an address: what to connect to, and the name that its certificate must have if that is another one."""

    address: str | None
    port: int
    name: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_socket(self) -> bool:
        """Return whether it is a folder with a Unix socket; one without an address may be a socket or localhost."""
        return self.address is not None and self.address.startswith("/")


@dataclass(frozen=True)
class Address:
    """Where and how to connect. `found` has the parameters by libpq's names."""

    hosts: tuple[Host, ...]
    user: str
    database: str
    found: Mapping[str, str]

    def __repr__(self) -> str:
        """Return nothing of what may be secret."""
        return f"Address({len(self.hosts)} hosts)"

    @property
    def server_settings(self) -> dict[str, str]:
        """Return what the startup packet carries beside user and database."""
        found = self.found
        named = found.get("application_name") or found.get("fallback_application_name") or OWN_NAME
        return {"application_name": named} | ({"options": found["options"]} if found.get("options") else {})

    @property
    def connect_timeout(self) -> int | None:
        """Return the seconds that each host is given, if the address says so; libpq waits for ever if it says 0."""
        given = int(self.found.get("connect_timeout") or 0)
        return max(given, 2) if given > 0 else None


def resolve(text: str, environment: Mapping[str, str] | None = None, *, setting: str = MAIN) -> Address:
    """Return an address with everything that it takes from elsewhere. Raises `DatabaseAddressError`, which names `setting`."""
    try:
        return _resolve(text, os.environ if environment is None else environment)
    except DatabaseAddressError as error:
        raise DatabaseAddressError(setting=setting, reason=error.values["reason"]) from None


def _resolve(text: str, environment: Mapping[str, str]) -> Address:
    found = _completed(parse(text), environment)
    check(found, source="with PG* variables of the environment, ")
    user = found.get("user") or _account()
    database = found.get("dbname") or user
    tls.mode(found)
    return Address(tuple(_with_password(host, found, database, user) for host in _hosts(found)), user, database, found)


def seconds(text: str, otherwise: float) -> float:
    """Return the seconds within which a connection is made or given up, all hosts together."""
    address = resolve(text)
    return address.connect_timeout * len(address.hosts) if address.connect_timeout else otherwise


def _completed(given: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of an address, then of its service, then of the environment."""
    variables = {
        name: environment[parameter.variable]
        for name, parameter in PARAMETERS.items()
        if parameter.variable and environment.get(parameter.variable)
    }
    service = given.get("service") or variables.get("service")
    if service:
        file = given.get("servicefile") or variables.get("servicefile")
        given = files.service(service, file, environment) | given
    if "host" in given:
        # unlike libpq: a variable does not lead an address that names its host to another one
        variables.pop("hostaddr", None)
    if "hostaddr" in given:
        variables.pop("host", None)
    return {name: value for name, value in (variables | given).items() if value}


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        refuse("it names no user, and the user of this process has no name: write user=")


def _hosts(found: Mapping[str, str]) -> list[Host]:
    names = found["host"].split(",") if found.get("host") else []
    numeric = found["hostaddr"].split(",") if found.get("hostaddr") else []
    if names and numeric and len(names) != len(numeric):
        refuse(f"it names {len(names)} hosts, and {len(numeric)} by hostaddr")
    count = max(len(names), len(numeric), 1)
    ports = [_port(one) for one in found.get("port", "").split(",")]
    if len(ports) == 1:
        ports *= count
    if len(ports) != count:
        refuse(f"it names {len(ports)} ports for {count} host{'s' if count > 1 else ''}")
    for name in names:
        _check_host(name)
    hosts = []
    for at, port in enumerate(ports):
        name = names[at] if names else ""
        address = numeric[at] if numeric else ""
        hosts.append(Host(address or name or None, port, name if address and name else None))
    return hosts


def _check_host(name: str) -> None:
    if "@" in name:
        refuse("a host has an @ in it. Abstract sockets are not supported; an @ of the user or password is written %40")
    if re.fullmatch(r"[^:]+:\d+", name):
        refuse("the parameter host holds a port: write host=a,b and port=5432,5433")


def _port(text: str) -> int:
    if not text:
        return PORT
    if not re.fullmatch(r"\d{1,5}", text) or not 0 < int(text) < 65536:
        refuse(
            "its port is not a number from 1 to 65535, or a special character of its password is not percent-encoded"
        )
    return int(text)


def _with_password(host: Host, found: Mapping[str, str], database: str, user: str) -> Host:
    """Return the host with the password for it: with several hosts a password file has one for each."""
    asked = host.name or host.address or "localhost"
    if asked in ("/run/postgresql", "/var/run/postgresql", "/tmp"):  # where libpq looks if it is given no host
        asked = "localhost"
    word = found.get("password") or files.password(found.get("passfile"), asked, host.port, database, user)
    return Host(host.address, host.port, host.name, word)
