"""One HTTP request and its answer, over a connection of its own.

httpcore is used without httpx's client: it follows no redirect, reads no environment, keeps no cookie and decodes
nothing, so none of that has to be switched off.
"""

import asyncio
import re
import ssl
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import httpcore
import httpx

from holdfast.tools.http_network import CONNECT_S, CheckedNetwork, Resolver, resolve
from holdfast.tools.http_rules import READS, Request, RequestFailed, RequestRefused
from holdfast.tools.run import OutcomeUnknown

#: What a request may take altogether, redirects included, in seconds.
TOTAL_S = 30.0

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


@dataclass(frozen=True)
class Response:
    """An answer as far as it is shown. `location`: where a redirect leads; `note`: what is missing of the body."""

    status: int
    headers: Mapping[str, str]
    location: str | None
    body: str
    note: str | None


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
        network = CheckedNetwork(self._resolver, self._network, request.named_address)
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
            with suppress(Exception):  # how the connection ends takes nothing from the answer
                await connection.aclose()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or httpx.create_ssl_context()


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
