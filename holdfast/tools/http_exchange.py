"""One HTTP request and its answer, over a connection to addresses that were checked.

The name is resolved once. Each address of the answer is checked, and the connection goes to one of these addresses, not
to the name: DNS that answers otherwise the second time changes nothing. The Host header, SNI and the certificate are
those of the name all the same, since httpcore knows only of the name.

httpcore is used without httpx's client: it follows no redirect, reads no environment, keeps no cookie and decodes
nothing, so none of that has to be switched off.
"""

import asyncio
import re
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from holdfast.domain.addresses import Address, is_public
from holdfast.tools.http_rules import READS, Request, RequestRefused
from holdfast.tools.run import OutcomeUnknown

#: What a request may take altogether, redirects included, in seconds.
TOTAL_S = 30.0

#: How long one address may take to accept a connection, in seconds; then the host's next one is tried.
CONNECT_S = 5.0

#: What is kept of a body, in bytes, decoded or not.
MAX_BODY_BYTES = 256 * 1024

#: What is kept of a header, in characters.
_MAX_HEADER_CHARACTERS = 1_000

#: The headers that a model may read. Not among them: cookies, and what is for browsers only.
_SHOWN = frozenset(
    {
        *("age", "allow", "cache-control", "content-language", "content-length", "content-range", "content-type"),
        *("date", "etag", "expires", "last-modified", "link", "location", "retry-after", "x-request-id"),
    }
)
_SHOWN_PREFIXES = ("ratelimit", "x-ratelimit-")

#: Python knows encodings that are slow on purpose-made input, and some that are no encodings of text.
_CHARSETS = frozenset({"utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252", "utf-16"})
_CHARSET = re.compile(r"charset=[\"']?([\w-]+)", re.IGNORECASE)

#: The addresses of a host, as text.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class RequestFailed(Exception):
    """The request had no effect that is known of: it was not sent, or it was one that only reads."""


@dataclass(frozen=True)
class Response:
    """An answer as far as it is shown. `location`: where a redirect leads; `note`: what is missing of the body."""

    status: int
    headers: Mapping[str, str]
    location: str | None
    body: str
    note: str | None


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, from the operating system."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Exchanger:
    """Makes requests, each over a connection of its own: none is kept for one that was checked differently.

    Args:
        resolver: asked once for each request.
        network: connects to the addresses that were checked.
        tls: what is trusted; by default what httpx trusts.
    """

    def __init__(
        self,
        resolver: Resolver = resolve,
        network: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._resolver = resolver
        self._network = network or httpcore.AnyIOBackend()
        self._given_tls = tls

    async def exchange(self, request: Request, deadline: float) -> Response:
        """Send a request and read the answer, until the event loop's clock says `deadline`.

        An answer whose status came counts as one, also when its body breaks off.

        Raises:
            RequestRefused: the host has an address that may not be asked. Nothing was sent.
            RequestFailed: nothing was sent; or it was, without an answer, and the method only reads.
            OutcomeUnknown: it was sent, no answer came, and the method may change something.
        """
        network = _CheckedNetwork(self._resolver, self._network, request.named_address)
        connection = httpcore.AsyncHTTPConnection(
            _url(request).origin,
            ssl_context=self._tls if request.url.scheme == "https" else None,
            network_backend=network,
        )
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    answer = await connection.handle_async_request(_as_sent(request))
            except (RequestRefused, RequestFailed):
                raise
            except Exception as error:  # whatever it was: what counts is whether the request had left
                raise _without_answer(request, error, has_left=network.has_sent) from error
            return await _read(answer, deadline)
        finally:
            await connection.aclose()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or httpx.create_ssl_context()


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to the host's addresses, if all of them may be asked. `has_sent`: a part of the request has left."""

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

    def __init__(self, stream: httpcore.AsyncNetworkStream, network: _CheckedNetwork) -> None:
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


class _Decoder:
    """Undoes gzip, as far as wanted: a small body can hold a gigabyte. What is not encoded passes."""

    def __init__(self, encoding: str) -> None:
        self.is_able = encoding in ("", "identity", "gzip", "x-gzip")
        self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None

    def decode(self, chunk: bytes, most: int) -> bytes:
        return chunk[:most] if self._gzip is None else self._gzip.decompress(chunk, most)


def _url(request: Request) -> httpcore.URL:
    url = request.url
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=request.port, target=url.raw_path)


def _as_sent(request: Request) -> httpcore.Request:
    headers = {
        "host": request.url.netloc.decode("ascii"),
        "accept": "*/*",
        "user-agent": "holdfast",
        **request.headers,
        "accept-encoding": "identity",
        "connection": "close",
    }
    if request.method not in READS:
        headers["content-length"] = str(len(request.body or b""))
    return httpcore.Request(
        request.method,
        _url(request),
        headers=list(headers.items()),
        content=request.body,
        extensions={"timeout": {"connect": CONNECT_S}},
    )


def _without_answer(request: Request, error: Exception, *, has_left: bool) -> Exception:
    why = f"no answer within {TOTAL_S:g} s" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    host = request.url.netloc.decode("ascii")
    if not has_left:
        return RequestFailed(f"{host} was not reached, and nothing was sent: {why}")
    if request.method in READS:
        return RequestFailed(f"{host} did not answer: {why}")
    return OutcomeUnknown(
        f"The {request.method} request was sent to {host}, and no answer came ({why}). "
        "Nobody knows whether it took effect."
    )


async def _read(answer: httpcore.Response, deadline: float) -> Response:
    headers = _text_headers(answer.headers)
    body, note = await _read_body(answer, headers.get("content-encoding", "").strip().lower(), deadline)
    text = _as_text(body, headers.get("content-type", ""))
    if "\x00" in text:
        text, note = "", "the body is not text, and is left out"
    return Response(answer.status, _shown(headers), headers.get("location"), text, note)


async def _read_body(answer: httpcore.Response, encoding: str, deadline: float) -> tuple[bytes, str | None]:
    decoder = _Decoder(encoding)
    if not decoder.is_able:
        return b"", f"the body is encoded as {encoding[:50]!r}, which can't be read here; it is left out"
    kept, received = bytearray(), 0
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in answer.aiter_stream():
                received += len(chunk)
                kept += decoder.decode(chunk, MAX_BODY_BYTES + 1 - len(kept))
                if max(len(kept), received) > MAX_BODY_BYTES:
                    return bytes(kept[:MAX_BODY_BYTES]), f"the body is longer; cut at {MAX_BODY_BYTES} bytes"
    except Exception as error:  # whatever it was: the server has answered, and its answer is not to be lost
        return bytes(kept), f"the body broke off: {str(error) or type(error).__name__}"
    return bytes(kept), None


def _text_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value[:_MAX_HEADER_CHARACTERS]
        for name, value in headers.items()
        if name in _SHOWN or name.startswith(_SHOWN_PREFIXES)
    }


def _as_text(body: bytes, content_type: str) -> str:
    named = _CHARSET.search(content_type)
    charset = named[1].lower() if named else "utf-8"
    return body.decode(charset if charset in _CHARSETS else "utf-8", errors="replace")
