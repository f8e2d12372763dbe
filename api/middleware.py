"""What holds for every request: it has an id, and its body is not larger than allowed."""

import logging
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("api.access")

#: The largest body, in bytes: the longest text in its widest encoding (6 bytes a character as a JSON escape), and more.
MAX_BODY_BYTES = 1024 * 1024


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
                MutableHeaders(scope=message)["x-request-id"] = request_id
                log.info("%s %r %s %s", scope["method"], scope["path"], message["status"], request_id)
            await send(message)

        await self._app(scope, _limited(receive), send_with_id)


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
