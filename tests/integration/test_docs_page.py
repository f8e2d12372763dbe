"""`/docs` is of this installation alone: no script, style or picture of anybody else's server."""

import re

import httpx
import pytest

from tests.harness.stage import Stage

POLICY = "default-src 'none'; script-src 'self'; "


@pytest.mark.parametrize("service", ["api", "pool"])
async def test_all_that_the_page_is_made_of_is_served_here(stage: Stage, pool_url: str, service: str) -> None:
    async with httpx.AsyncClient(base_url=stage.url if service == "api" else pool_url) as browser:
        page = await browser.get("/docs")
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        found = {path: await browser.get(f"/{path}") for path in named}
        schema = await browser.get("/openapi.json")
        none = [(await browser.get(path)).status_code for path in ("/docs/setup.py", "/docs/..%2fcore.py", "/redoc")]

    assert page.headers["content-security-policy"].startswith(POLICY)
    assert len(named) == 4
    assert {path: one.status_code for path, one in found.items()} == dict.fromkeys(named, 200)
    assert [path for path in named if "//" in path] == []
    assert "OpenAPI" in found["docs/swagger-ui-bundle.js"].text
    assert 'url: "openapi.json"' in found["docs/start.js"].text
    assert schema.headers["x-content-type-options"] == "nosniff"
    assert none == [404, 404, 404]
