"""`/docs`: the API's documentation, to read and to try out, from files of this installation and of nowhere else.

FastAPI's own page loads its scripts from a CDN, which then could do whatever the key can that somebody types in there.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from holdfast.domain.errors import NotFound

router = APIRouter(include_in_schema=False)

_ASSETS = Path(str(files("fastapi_offline") / "static"))

_TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}

# Relative, so that it holds behind a proxy that adds a prefix.
_START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null})"""

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="docs/favicon.png"><link rel="stylesheet" href="docs/swagger-ui.css">
<div id="ui"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></html>"""

# `connect-src`: what is tried out goes to this server alone. Its icons are `data:` in the style sheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FOR_A_DAY = {"cache-control": "public, max-age=86400"}


@router.get("/docs")
async def page(request: Request) -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE.format(title=request.app.title), headers={"content-security-policy": _POLICY})


@router.get("/docs/{file}")
async def asset(file: str) -> Response:
    """One of the files that the page is made of."""
    if file == "start.js":
        return Response(_START, media_type="text/javascript", headers=_FOR_A_DAY)
    if file not in _TYPES:
        raise NotFound("file", file)
    return FileResponse(_ASSETS / file, media_type=_TYPES[file], headers=_FOR_A_DAY)
