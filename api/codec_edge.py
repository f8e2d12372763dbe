"""What the Temporal UI needs to reach `/codec` from a browser: leave to come from another origin, and a cookie.

The UI can't be given an API key. What it can send along is the token of a person who signed in to it, or the cookies
of this address: one of them, set by `/codec/sign-in`, holds an API key, and stands for the header that it would be in.
Both hold for the paths below `/codec` and for the UI's origin alone.
"""

from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "holdfast_codec"

_PATH = "/codec/"
_LOOPBACK = frozenset({"localhost", "127.0.0.1"})


class CodecEdge:
    """Lets the Temporal UI, at `ui_url`, in; None: nobody from another origin."""

    def __init__(self, app: ASGIApp, ui_url: str | None) -> None:
        self._app = app
        self._across_origins = CORSMiddleware(
            app,
            allow_origins=_origins(ui_url),
            allow_methods=["POST"],
            allow_headers=["authorization", "authorization-extras", "content-type", "x-namespace"],
            allow_credentials=True,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_PATH):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        key = _key_in_cookie(headers)
        if key is not None and "authorization" not in headers:
            scope = {**scope, "headers": list(scope["headers"])}
            MutableHeaders(scope=scope)["authorization"] = f"Bearer {key}"
        await self._across_origins(scope, receive, send)


def _origins(ui_url: str | None) -> list[str]:
    if ui_url is None:
        return []
    parts = urlsplit(ui_url)
    if parts.hostname not in _LOOPBACK:
        return [f"{parts.scheme}://{parts.netloc}"]
    port = "" if parts.port is None else f":{parts.port}"
    # On one machine it goes by both names.
    return [f"{parts.scheme}://{host}{port}" for host in sorted(_LOOPBACK)]


def _key_in_cookie(headers: Headers) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value
