"""The connections of the clients that speak through httpx: to the address that was judged and to no other, under the name of its host.

The name stays in the request, so that the server's certificate must be the one of the host.
"""

import ssl
from functools import cache

import httpx

from evervec.vendors.networks import SCHEME_PORTS, Address, Resolver


class GuardedTransport(httpx.AsyncHTTPTransport):
    """The transport of `httpx`, which asks no proxy and resolves no name by itself."""

    def __init__(self, provider: str) -> None:
        super().__init__(trust_env=False, verify=_certificates())
        self._resolver = Resolver(provider)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to an allowed address of its host. Raise `ConfigError` for one that is not."""
        url, connect = request.url, super().handle_async_request
        request.extensions = {**request.extensions, "sni_hostname": url.host}

        async def send(address: Address) -> httpx.Response:
            request.url = url.copy_with(host=address)
            return await connect(request)

        return await self._resolver.reach(url.host, url.port or SCHEME_PORTS[url.scheme], send, httpx.ConnectError)


@cache
def _certificates() -> ssl.SSLContext:
    """Return what the certificates of servers are checked against, read once: that takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)
