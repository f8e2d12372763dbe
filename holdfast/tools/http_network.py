"""Connecting to a host at an address that was checked.

The name is resolved once. Each address of the answer is checked, and the connection goes to one of these addresses, not
to the name: DNS that answers otherwise the second time changes nothing. The Host header, SNI and the certificate are
those of the name all the same, since httpcore knows only of the name.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any

import httpcore

from holdfast.domain.addresses import Address, is_public
from holdfast.tools.http_rules import RequestFailed, RequestRefused

#: How long one address may take to accept a connection, and TLS to begin, in seconds.
CONNECT_S = 5.0

#: The addresses of a host, as text.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, from the operating system."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to a host's addresses, if all of them may be asked.

    `has_sent`: a part of the request has left, so that whoever got it may have acted on it.

    Args:
        resolver: asked once for each connection.
        network: connects to the addresses that were checked.
        named_address: the one that may be asked although it is not public.
    """

    def __init__(
        self, resolver: Resolver, network: httpcore.AsyncNetworkBackend, named_address: Address | None
    ) -> None:
        self.has_sent = False
        self._resolver = resolver
        self._network = network
        self._named_address = named_address

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = await self._checked_addresses(host, port)
        for address in others:
            try:
                return await self._connect(address, port)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(last, port)

    async def _checked_addresses(self, host: str, port: int) -> list[Address]:
        try:
            addresses = [ip_address(text) for text in await self._resolver(host, port)]
        except (OSError, ValueError) as error:
            raise RequestFailed(f"the host {host!r} can't be resolved: {error}") from error
        if not addresses:
            raise RequestFailed(f"the host {host!r} has no address")
        # One that may not be asked among several: whoever set them up may be trying.
        if not all(is_public(address) or address == self._named_address for address in addresses):
            raise RequestRefused(f"the host {host!r} has an address that is not public")
        return addresses

    async def _connect(self, address: Address, port: int) -> httpcore.AsyncNetworkStream:
        return _WatchedStream(await self._network.connect_tcp(str(address), port, timeout=CONNECT_S), self)


class _WatchedStream(httpcore.AsyncNetworkStream):
    """A connection that tells its network when a part of the request leaves. The TLS handshake is none."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, network: CheckedNetwork) -> None:
        self._stream = stream
        self._network = network

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._network.has_sent = True
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            secured = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            # httpcore closes at an error only, and our deadline cancels.
            await self._stream.aclose()
            raise
        return _WatchedStream(secured, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
