"""Which addresses a provider may have: a host is resolved once, its addresses are judged, and those are connected to.

So no answer of a name server leads a request, and the key in it, to a machine that the operator did not mean.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeVar

from evervec.errors import ConfigError, Refused, TransientError

Address = str
Network = IPv4Network | IPv6Network
Answer = TypeVar("Answer")

SCHEME_PORTS: Final = {"http": 80, "https": 443}

METADATA: Final = tuple(ip_network(one) for one in ("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128"))
"""Where clouds answer with the keys of a machine, besides 169.254.169.254, which is link-local."""


@dataclass(frozen=True)
class AllowedNetworks:
    """The addresses that requests may go to: public ones, `private` ones too, and whatever is in `listed`."""

    private: bool = True
    listed: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "AllowedNetworks":
        """Return what `EVERVEC_PROVIDER_NETWORKS` allows. Raise `Refused` for a text that is none."""
        match text.strip().lower():
            case "private":
                return cls()
            case "public":
                return cls(private=False)
        try:
            listed = tuple(ip_network(one.strip(), strict=False) for one in text.split(","))
        except ValueError as problem:
            raise Refused(
                reason=f"EVERVEC_PROVIDER_NETWORKS={text!r}: {problem}. Give `private`, `public`, or networks such as "
                "10.0.0.0/8,127.0.0.1/32, which are allowed beside the public ones."
            ) from None
        return cls(private=False, listed=listed)

    def permit(self, address: Address) -> bool:
        """Return whether a request may go to an IP address."""
        ip = ip_address(address.partition("%")[0])
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if any(ip in network for network in self.listed):
            return True
        if ip.is_link_local or ip.is_multicast or any(ip in network for network in METADATA):
            return False
        return ip.is_global or (self.private and (not ip.is_reserved or ip.is_loopback))


class NetworkPolicy:
    """The policy of this process; every client of a vendor asks it, however it was opened."""

    def __init__(self) -> None:
        self.allowed = AllowedNetworks()


POLICY: Final = NetworkPolicy()


@dataclass
class Resolver:
    """The addresses of the hosts of one client, each resolved when it is first needed and again when none can be reached."""

    provider: str
    _known: dict[tuple[str, int], list[Address]] = field(default_factory=dict)

    async def reach(
        self, host: str, port: int, send: Callable[[Address], Awaitable[Answer]], refused: type[Exception]
    ) -> Answer:
        """Send to the first address of a host that takes a connection; `refused` is what `send` raises for one that does not.

        Raise `ConfigError` for a host with an address that is not allowed.
        """
        known = self._known.get((host, port))
        if known is None:
            known = self._known[host, port] = await self._resolve(host, port)
        for address in known[:-1]:
            try:
                return await send(address)
            except refused:
                continue
        try:
            return await send(known[-1])
        except refused:
            self._known.pop((host, port), None)
            raise

    async def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as problem:
            raise TransientError(self.provider, f"{host} can not be resolved: {problem.strerror or problem}") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not POLICY.allowed.permit(address):
                raise ConfigError(
                    self.provider,
                    f"{host} is at {address}, where no request may go. If that is yours, allow it with "
                    f"EVERVEC_PROVIDER_NETWORKS={address}, beside what is there.",
                )
        return addresses
