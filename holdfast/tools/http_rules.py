"""What an HTTP request of a model may be: the host, the headers, and where a redirect may lead. Nothing is sent here.

A URL is read once, by httpx, and what was read is what is compared with the agent's list and what is connected to:
two readers that disagree about `http://allowed.example\\@127.0.0.1` are how such lists are got around.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import httpx

from holdfast.domain.addresses import Address
from holdfast.domain.agents import HttpAccess
from holdfast.domain.hosts import DEFAULT_PORTS, read_host
from holdfast.tools.run import NothingHappened

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

#: Methods that by convention change nothing: one that failed did no harm. A server may think otherwise.
READS = frozenset({"GET", "HEAD"})

MAX_HEADERS = 50
MAX_HEADER_CHARACTERS = 16 * 1024

#: What we or the connection say, and what would make a model a proxy or somebody else: no request of its own has them.
_NOT_FOR_MODELS = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "accept-encoding", "connection", "keep-alive"),
        *("te", "trailer", "upgrade", "expect", "http2-settings", "cookie", "cookie2"),
        *("x-http-method", "x-http-method-override", "x-method-override"),  # with one, a GET would be no read
    }
)

#: What goes along to another origin. Anything else, such as `authorization` and `x-api-key`, was meant for the first.
_NOT_SECRET = frozenset({"accept", "accept-language", "content-type", "user-agent"})

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\xa0\\]")

_MOVED = frozenset({301, 302})
_SEE_OTHER = 303
REDIRECTS = _MOVED | {_SEE_OTHER, 307, 308}


class RequestRefused(Exception):
    """The request is not allowed, and was not sent."""


class RequestFailed(NothingHappened):
    """The request had no effect that is known of: it was not sent, or it was one that only reads."""


@dataclass(frozen=True)
class Request:
    """A request that may be made, if its host turns out to have addresses that may be asked.

    Args:
        headers: the model's, by name in lower case.
        named_address: the address that the agent's list names itself, and that need not be public.
    """

    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    body: bytes | None
    named_address: Address | None

    @property
    def port(self) -> int:
        return port_of(self.url)


def allowed_request(access: HttpAccess, method: str, url: str, headers: Mapping[str, str], body: str | None) -> Request:
    """A model's wish as a request.

    Raises:
        RequestRefused: its host is not on the agent's list, or something of it can't be sent; the text says what.
    """
    if body is not None and method in READS:
        raise RequestRefused(f"a {method} request has no body")
    found = read_url(url)
    return Request(method, found, _checked_headers(headers), _as_bytes(body), _admitted(access, found))


def redirected(access: HttpAccess, request: Request, status: int, location: str) -> Request:
    """The request that a redirect asks for, checked as if it were the first.

    Raises:
        RequestRefused: it leads to where the agent may not ask, or from https to http.
    """
    url = read_url(location, request.url)
    if request.url.scheme == "https" and url.scheme == "http":
        raise RequestRefused("it leads from https to http")
    named_address = _admitted(access, url)
    method = _method_after(request.method, status)
    body = request.body if method == request.method else None
    headers = request.headers
    if _origin(url) != _origin(request.url):
        headers = {name: value for name, value in headers.items() if name in _NOT_SECRET}
    if body is None:
        headers = {name: value for name, value in headers.items() if name != "content-type"}
    return Request(method, url, headers, body, named_address)


def read_url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """A URL as it is checked and connected to.

    Raises:
        RequestRefused: it can't be read in one way only, or is not of the web.
    """
    if _NOT_IN_URLS.search(text):
        raise RequestRefused("the URL has a space, a backslash or a control character; encode it, like %20")
    try:
        url = httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise RequestRefused(f"the URL can't be read: {error}") from error
    if url.scheme not in DEFAULT_PORTS:
        raise RequestRefused(f"the URL must begin with https:// or http://, not with {url.scheme!r}")
    if url.userinfo:
        raise RequestRefused("the URL has a user or a password in it; leave them out")
    return url


def _admitted(access: HttpAccess, url: httpx.URL) -> Address | None:
    """The address that the agent's list names, None for a name; raises where the list has neither."""
    if not access.allow:
        raise RequestRefused("this agent may ask no host: its http.allow is empty")
    try:
        host = read_host(url.raw_host.decode("ascii"))
    except ValueError as error:
        raise RequestRefused(f"the URL's host can't be asked: {error}") from error
    if not any(entry.admits(url.scheme, host, port_of(url)) for entry in access.hosts):
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        raise RequestRefused(f"this agent may not ask {origin}, only {', '.join(access.allow)}")
    return None if isinstance(host, str) else host


def port_of(url: httpx.URL) -> int:
    return DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def _origin(url: httpx.URL) -> tuple[str, bytes, int]:
    return url.scheme, url.raw_host, port_of(url)


def _method_after(method: str, status: int) -> str:
    """Browsers turn a POST that was moved into a GET, and so does what was made for them."""
    turns_into_get = (status == _SEE_OTHER and method != "HEAD") or (status in _MOVED and method == "POST")
    return "GET" if turns_into_get else method


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    if len(headers) > MAX_HEADERS or sum(map(len, (*headers, *headers.values()))) > MAX_HEADER_CHARACTERS:
        raise RequestRefused(f"at most {MAX_HEADERS} headers with {MAX_HEADER_CHARACTERS} characters can be sent")
    checked: dict[str, str] = {}
    for name, value in headers.items():
        _check_header(name, value)
        if name.lower() in checked:
            raise RequestRefused(f"the header {name!r} is given twice")
        checked[name.lower()] = value.strip()
    return checked


def _check_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
        raise RequestRefused(f"the header {name!r} has a line break or a character that headers can't have")
    if name.lower() in _NOT_FOR_MODELS or name.lower().startswith("proxy-"):
        raise RequestRefused(f"the header {name!r} can't be set")


def _as_bytes(body: str | None) -> bytes | None:
    try:
        return None if body is None else body.encode()
    except UnicodeEncodeError as error:
        raise RequestRefused("the body has half of a surrogate pair in it, which is no text") from error
