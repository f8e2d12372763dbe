"""What holds for every request: it has an id, is meant for this host, and its body is not larger than allowed.

And for every answer: no cache keeps it; a browser takes it for what it says it is, and runs and frames nothing of it.
"""

import logging
import re
import secrets
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems

log = logging.getLogger("api.access")

#: The largest body, in bytes: the longest text in its widest encoding (6 bytes a character as a JSON escape), and more.
MAX_BODY_BYTES = 1024 * 1024


#: What an answer has that says nothing else. A page names what it needs beyond this.
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class RequestEdge:
    """Gives each request an `x-request-id` (the caller's, if it is a plain one), logs it, and limits its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = _request_id(Headers(scope=scope))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                log.info("%s %r %s %s", scope["method"], scope["path"], message["status"], request_id)
            await send(message)

        await self._app(scope, _limited(receive), send_with_id)


_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]/@\s]+))(?::\d{1,5})?")

#: Asked by load balancers and orchestrators, which know an address and no name; they tell nothing.
_FOR_ANY_HOST = frozenset({"/livez", "/readyz", "/health"})


class KnownHosts:
    """Answers only to the names under which this is meant to be reached; `hosts` None: to any.

    A web page may have its own name point at an address of this machine, and then talk to what listens there as if it
    were its own server: its requests carry that name. (Starlette's own middleware answers in plain text.)
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._hosts is None or self._is_known(scope):
            return await self._app(scope, receive, send)
        detail = "This is not a host that is served here (HOLDFAST_ALLOWED_HOSTS)."
        await problems.problem(Request(scope), 421, detail)(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        assert self._hosts is not None
        return scope["path"] in _FOR_ANY_HOST or _host(Headers(scope=scope)) in self._hosts


def _host(headers: Headers) -> str | None:
    """The name that a request is for, without its port; None: it says none, or more than one."""
    given = headers.getlist("host")
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    return None if found is None else (found["v6"] or found["name"]).lower()


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    is_plain = given.isascii() and given.replace("-", "").replace("_", "").isalnum() and len(given) <= 128
    return given if is_plain else f"req_{secrets.token_hex(12)}"


def _limited(receive: Receive) -> Receive:
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
        return message

    return receive_limited
