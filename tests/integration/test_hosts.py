"""The host that a request names: `dev` answers to its own loopback names, production to those it is told."""

import httpx
import pytest

from holdfast.config.loading import load_settings
from holdfast.config.settings import LOOPBACK, ApiSettings
from tests.harness.stage import Stage, serving_api


async def status(url: str, host: str, path: str = "/openapi.json") -> int:
    async with httpx.AsyncClient(base_url=url) as client:
        response = await client.get(path, headers={"host": host})
    if response.status_code == 421:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == 421
        assert response.headers["x-request-id"]
    return response.status_code


OURS = ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:8000"]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example@localhost",
    "localhost:8000:evil",
    "127.0.0.2",
    "[::2]",
    "::1",
    "0.0.0.0",
    "",
]


@pytest.mark.parametrize("host", OURS)
async def test_dev_answers_to_this_machines_own_names(stage: Stage, host: str) -> None:
    assert await status(stage.url, host) == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_dev_answers_to_no_other(stage: Stage, pool_url: str, host: str) -> None:
    """Nor does the model pool: else a web page could have its own name lead here."""
    for url in (stage.url, pool_url):
        assert await status(url, host) == 421
        assert await status(url, host, "/livez") == 200, "a load balancer knows an address only"


async def test_production_answers_to_the_names_it_is_told(stage: Stage) -> None:
    named = {"environment": "production", "allowed_hosts": ("api.example.com",), "models": None}
    async with serving_api(stage.database_url, stage.task_queue, **named) as url:
        assert [await status(url, host) for host in ("API.example.com:443", "localhost")] == [200, 421]


async def test_production_that_is_told_none_answers_to_all(stage: Stage) -> None:
    async with serving_api(stage.database_url, stage.task_queue, environment="production", models=None) as url:
        assert await status(url, "anything.example") == 200


def test_what_is_told_has_commas(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", stage.database_url)
    monkeypatch.setenv("HOLDFAST_KEY_PEPPER", "p" * 32)
    assert load_settings(ApiSettings).hosts is None
    monkeypatch.setenv("HOLDFAST_ALLOWED_HOSTS", "a.example, b.example,")
    assert load_settings(ApiSettings).hosts == ("a.example", "b.example")
    monkeypatch.delenv("HOLDFAST_ALLOWED_HOSTS")
    monkeypatch.setenv("HOLDFAST_ENVIRONMENT", "dev")
    assert load_settings(ApiSettings).hosts == LOOPBACK
