"""`/codec`: opens sealed payloads for the Temporal UI and command line, in Temporal's remote codec protocol.

Only payloads of the caller's own tenant are opened; others, and whatever can't be opened, come back as they are. The UI
sends a cookie, or the token that a person signed in to it with; the command line an API key (`--codec-auth`). How the
cookie stands for an API key: `api/codec_edge.py`.
"""

from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from pydantic import BaseModel
from temporalio.api.common.v1 import Payload

from api.auth import Needs, admitted, needs
from api.codec_edge import COOKIE
from api.routing import resource
from api.wiring import services
from holdfast.config.settings import LOOPBACK
from holdfast.domain.errors import CredentialRefused, InvalidInput
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.storable import is_storable
from holdfast.services.keys import PREFIX

router = resource("/codec", "codec")

#: How long a browser may open payloads without signing in again, in seconds.
_SIGNED_IN_S = 8 * 60 * 60

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Holdfast: payloads in the Temporal UI</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui;max-width:36rem;margin:4rem auto;padding:0 1rem}}</style>{body}</html>"""

_FORM = """<h1>Open payloads in the Temporal UI</h1><form method="post" action="/codec/sign-in">
<p><label>API key <input type="password" name="key" autocomplete="off" required autofocus></label>
<button>Sign in</button></form>
<p>One of an operator. It is kept in a cookie of this browser, for eight hours and for this purpose alone.</p>"""

_DONE = """<h1>Signed in</h1><p>In the Temporal UI, open the codec settings (the glasses, top right), set the
endpoint to this address, ending in <code>/codec</code>, and choose <em>Include cross-origin credentials</em>.</p>"""


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


class PayloadsBody(BaseModel):
    """Payloads as protobuf's JSON writes them: `metadata` and `data` in base64."""

    payloads: list[dict[str, Any]]


@router.post("/decode")
async def decode(
    request: Request, caller: Annotated[Caller, needs(Permission.CODEC_DECODE)], body: PayloadsBody
) -> PayloadsBody:
    """Open payloads of the caller's tenant. What can't be opened comes back as it came."""
    if not is_storable(body.payloads):
        raise InvalidInput("payloads", "They hold a NUL or a lone surrogate, which no JSON of protobuf does.")
    codec = services(request).codec
    if codec is None:
        return body
    opened = []
    for given in body.payloads:
        payload = _parsed(given)
        result = None if payload is None else codec.opened_for(caller.tenant_id, payload)
        opened.append(given if result is None or result is payload else MessageToDict(result))
    return PayloadsBody(payloads=opened)


@router.get("/sign-in", include_in_schema=False)
async def sign_in_page() -> HTMLResponse:
    """Where a person says their key once, since the Temporal UI can't ask for one."""
    return _page(_FORM)


async def _key(request: Request) -> str:
    form = parse_qs((await request.body()).decode(errors="replace"))
    return form.get("key", [""])[0].strip()


@router.post("/sign-in", include_in_schema=False)
async def sign_in(request: Request, key: Annotated[str, Depends(_key)]) -> HTMLResponse:
    """Keep the key in a cookie that no script can read, and that no other site makes the browser send."""
    await Needs(Permission.CODEC_DECODE)(request, await admitted(request, key))
    if not key.startswith(PREFIX):
        raise CredentialRefused("Sign in with an API key. A token goes with the UI's requests by itself.")
    response = _page(_DONE)
    # A proxy that ends TLS may not say so. On the loopback there is none, and a browser would keep the cookie back.
    is_secure = request.url.scheme == "https" or request.url.hostname not in LOOPBACK
    response.set_cookie(
        COOKIE, key, max_age=_SIGNED_IN_S, path="/codec", httponly=True, samesite="strict", secure=is_secure
    )
    return response


def _page(body: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(body=body), headers={"content-security-policy": _POLICY})


def _parsed(given: dict[str, Any]) -> Payload | None:
    try:
        return ParseDict(given, Payload(), ignore_unknown_fields=True)
    except (ParseError, ValueError, RecursionError):
        return None
