"""`/codec/decode`: the Temporal UI and command line show what is sealed to whoever may see it, and to nobody else."""

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from holdfast.services.request_limits import FAILURES_A_MINUTE
from holdfast.temporal.codec import SealingCodec
from tests.conftest import new_tenant
from tests.harness.caller import Caller
from tests.harness.stage import KEYRING, Stage, serving_api

UI = "http://temporal.test"
Json = dict[str, Any]


async def payloads_of(caller: Caller, stage: Stage) -> list[Json]:
    """The payloads in the history of a run, as the UI reads them."""
    run = await caller.ask("hello")
    handle = stage.temporal.get_workflow_handle(f"{caller.tenant_id}:support:{run['message_id']}")
    # The reply is there before the workflow's last event is.
    await handle.result()
    found: list[Json] = []
    _collect(json.loads((await handle.fetch_history()).to_json()), found)
    return found


def _collect(value: Any, found: list[Json], mark: str = "encryption-key-id") -> None:
    if isinstance(value, dict):
        if isinstance(value.get("metadata"), dict) and mark in value["metadata"]:
            found.append(value)
        for inner in value.values():
            _collect(inner, found, mark)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, found, mark)


async def decode(caller: Caller, payloads: list[Any]) -> list[Json]:
    response = await caller.http.post("/codec/decode", json={"payloads": payloads}, headers={"x-namespace": "default"})
    assert response.status_code == 200, response.text
    decoded: list[Json] = response.json()["payloads"]
    return decoded


def text(payload: Json) -> str:
    return base64.b64decode(payload.get("data", "")).decode()


async def test_every_payload_of_a_run_opens_for_its_tenant_and_for_no_other(ada: Caller, stage: Stage) -> None:
    bob = await stage.caller(new_tenant(), "bob")
    sealed = await payloads_of(ada, stage)
    opened = await decode(ada, sealed)

    assert len(sealed) >= 8
    encodings = {base64.b64decode(payload["metadata"]["encoding"]).decode() for payload in opened}
    assert encodings <= {"json/plain", "binary/null", "json/protobuf"}
    assert any(ada.tenant_id in text(payload) for payload in opened)
    assert any("message to support" in text(payload) for payload in opened)
    assert await decode(bob, sealed) == sealed


async def test_what_cant_be_opened_comes_back_as_it_came(ada: Caller) -> None:
    of_nobody = [MessageToDict(p) for p in await SealingCodec(KEYRING).encode([])]
    given: list[Any] = [
        {},
        {"data": "not base64!"},
        {"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "MQ=="},
        {"metadata": {"encoding": "YmluYXJ5L2VuY3J5cHRlZA=="}, "data": "MQ=="},
        {"metadata": {"encoding": "YmluYXJ5L2VuY3J5cHRlZA==", "tenant": _b64(ada.tenant_id)}, "data": "MQ=="},
        {
            "metadata": {
                "encoding": "YmluYXJ5L2VuY3J5cHRlZA==",
                "tenant": _b64(ada.tenant_id),
                "encryption-key-id": _b64("tests"),
            },
            "data": _b64("x" * 100),
        },
        {"metadata": [1]},
        {"metadata": {"encoding": 7}},
        {"whatever": "else"},
        *of_nobody,
    ]
    assert await decode(ada, given) == given


def _b64(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


async def test_a_payload_under_anothers_name_stays_shut(ada: Caller, stage: Stage) -> None:
    bob = await stage.caller(new_tenant(), "bob")
    sealed = await payloads_of(ada, stage)
    renamed = [{**one, "metadata": {**one["metadata"], "tenant": _b64(bob.tenant_id)}} for one in sealed]
    assert await decode(bob, renamed) == renamed


async def test_nobody_opens_anything_without_a_key(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.url) as http:
        for headers in (
            {},
            {"authorization": "Bearer hf_wrong"},
            {"cookie": "holdfast_codec=hf_wrong"},
            {"cookie": "\x22"},
        ):
            response = await http.post("/codec/decode", json={"payloads": []}, headers={**headers, "origin": UI})
            assert response.status_code == 401
            # The UI can show why.
            assert response.headers["access-control-allow-origin"] == UI


@pytest.mark.parametrize(
    ("path", "origin", "allowed"),
    [
        ("/codec/decode", UI, True),
        ("/codec/decode", "http://evil.test", False),
        ("/v1/runs", UI, False),
    ],
)
async def test_only_the_temporal_ui_may_come_from_another_origin(
    ada: Caller, path: str, origin: str, allowed: bool
) -> None:
    preflight = await ada.http.options(
        path,
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,x-namespace,authorization",
        },
    )
    assert (preflight.headers.get("access-control-allow-origin") == origin) is allowed
    assert (preflight.status_code == 200) is allowed


async def test_a_browser_signs_in_once_and_sends_its_cookie(ada: Caller, stage: Stage) -> None:
    sealed = await payloads_of(ada, stage)
    async with httpx.AsyncClient(base_url=stage.url) as browser:
        assert (await browser.post("/codec/sign-in", data={"key": "hf_wrong"})).status_code == 401
        assert "password" in (await browser.get("/codec/sign-in")).text
        signed_in = await browser.post("/codec/sign-in", data={"key": ada.key})
        cookie = signed_in.headers["set-cookie"]
        opened = await browser.post("/codec/decode", json={"payloads": sealed}, headers={"origin": UI})
        elsewhere = await browser.get("/v1/runs")

    assert signed_in.status_code == 200
    assert all(part in cookie for part in ("HttpOnly", "Path=/codec", "SameSite=strict", "Max-Age=28800"))
    assert opened.headers["access-control-allow-credentials"] == "true"
    assert opened.json()["payloads"] == await decode(ada, sealed)
    assert elsewhere.status_code == 401


async def test_a_key_that_is_tried_or_opens_nothing_is_refused_where_it_is_typed(ada: Caller, stage: Stage) -> None:
    client = await stage.caller(ada.tenant_id, "carl", only=["client"])
    async with (
        serving_api(stage.database_url, stage.task_queue, requests_per_minute=1000) as url,
        httpx.AsyncClient(base_url=url) as browser,
    ):
        opens_nothing = await browser.post("/codec/sign-in", data={"key": client.key})
        # On a slow machine some are forgiven meanwhile.
        tried: list[int] = []
        while 429 not in tried:
            tried.append((await browser.post("/codec/sign-in", data={"key": f"hf_{len(tried)}"})).status_code)
        right = await browser.post("/codec/sign-in", data={"key": ada.key})
        elsewhere = await browser.post("/codec/sign-in", data={"key": ada.key}, headers={"host": "localhost"})

    assert opens_nothing.status_code == 403
    assert "set-cookie" not in opens_nothing.headers
    assert tried[:-1] == [401] * (len(tried) - 1)
    assert len(tried) > FAILURES_A_MINUTE
    assert right.status_code == elsewhere.status_code == 200
    assert "Secure" not in right.headers["set-cookie"]


async def test_beyond_this_machine_the_cookie_goes_over_tls_alone(ada: Caller, stage: Stage) -> None:
    named = {"environment": "production", "allowed_hosts": ("api.example.com",), "models": None}
    async with (
        serving_api(stage.database_url, stage.task_queue, **named) as url,
        httpx.AsyncClient(base_url=url, headers={"host": "api.example.com"}) as browser,
    ):
        page = await browser.get("/codec/sign-in")
        signed_in = await browser.post("/codec/sign-in", data={"key": ada.key})

    assert "Secure" in signed_in.headers["set-cookie"]
    for one in (page, signed_in):
        assert "frame-ancestors 'none'" in one.headers["content-security-policy"]
        assert one.headers["cache-control"] == "no-store"


async def test_temporals_command_line_opens_them_with_an_api_key(ada: Caller, stage: Stage) -> None:
    run = await ada.ask("hello")
    program = Path(sys.executable).parent / "temporal"
    workflow = f"{ada.tenant_id}:support:{run['message_id']}"
    address = stage.temporal.service_client.config.target_host
    command = [str(program), "workflow", "show", "--workflow-id", workflow, "--address", address, "-o", "json"]
    codec = ["--codec-endpoint", f"{stage.url}/codec", "--codec-auth", f"Bearer {ada.key}"]

    async def shown(*options: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run, [*command, *options], capture_output=True, text=True, check=True, timeout=60
        )
        return str(done.stdout)

    def payloads(history: str) -> str:
        found: list[Json] = []
        _collect(json.loads(history), found, "encoding")
        return "".join(text(payload) for payload in found if payload["metadata"]["encoding"] == _b64("json/plain"))

    assert run["id"] not in payloads(await shown())
    assert run["id"] in payloads(await shown(*codec))
