"""A stream lasts as long as its reader's key or token is good, and a person has so many of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from api import open_streams, openai_route
from api.open_streams import OpenStream
from holdfast.domain.errors import CredentialRefused, Unavailable
from holdfast.domain.permissions import Caller as Known
from holdfast.domain.runs import OPEN
from holdfast.services import tokens
from holdfast.streaming import tail
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text
from tests.conftest import new_tenant
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.identity_provider import AUDIENCE, new_identity_provider
from tests.harness.stage import Stage, serving_api
from tests.integration.test_chat_clients import chat, run

_SAID = "One two three four five six seven eight nine ten."
_USER = [{"role": "user", "content": "count"}]
_EVENTS = {"accept": "text/event-stream"}

#: What answers with a stream, or is held until there is an answer: by name, the path, the body and the headers.
STREAMS: dict[str, tuple[str, Json, dict[str, str]]] = {
    "messages": ("/v1/messages", {"agent": "support", "text": "count"}, _EVENTS),
    "responses": ("/v1/responses", {"model": "support", "input": "count", "stream": True}, {}),
    "responses, held": ("/v1/responses", {"model": "support", "input": "count"}, {}),
    "completions": ("/v1/chat/completions", {"model": "support", "messages": _USER, "stream": True}, {}),
    "completions, held": ("/v1/chat/completions", {"model": "support", "messages": _USER}, {}),
    "ag-ui": ("/agui/support", run("a-thread", "a-run", "count"), {}),
    "chat": ("/api/chat", chat("a-chat", "count"), {}),
    "models": ("/complete/stream", {"alias": "fast", "messages": _USER}, {}),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers are looked up again all the time."""
    for module, name in ((open_streams, "LOOK_AGAIN_S"), (openai_route, "LOOK_AGAIN_S"), (tail, "_ASK_AGAIN_S")):
        monkeypatch.setattr(module, name, 0.05)


def post(caller: Caller, stream: str, url: str = "") -> Any:
    """A request for one of the streams."""
    path, body, headers = STREAMS[stream]
    return caller.http.stream("POST", f"{url}{path}", json=body, headers=headers)


class Reading:
    """Somebody who reads a stream to its end."""

    def __init__(self, request: Any) -> None:
        self.status = 0
        self.text = ""
        self.task = asyncio.create_task(self._read(request))

    async def _read(self, request: Any) -> None:
        async with request as response:
            self.status = response.status_code
            async for piece in response.aiter_text():
                self.text += piece

    @property
    def said(self) -> list[Json]:
        """What was told, as JSON, whichever way."""
        lines = [line.removeprefix("data: ") for line in self.text.splitlines()]
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.usefixtures("impatient")
async def test_what_is_read_with_a_key_ends_when_the_key_is_revoked(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """All that Bob reads; and nothing that Ada does, or a Bob of another tenant."""
    bob = await stage.caller(ada.tenant_id, "bob")
    namesake = await stage.caller(new_tenant(), "bob")
    stalls = Stalls(Text(_SAID), after=4)
    provider.script(*[stalls] * (len(STREAMS) + 1))
    readings = {name: Reading(post(bob, name)) for name in STREAMS}
    others = [Reading(post(namesake, "messages"))]
    await until(lambda: all("One" in one.text for name, one in readings.items() if "held" not in name))
    await until(lambda: "One" in others[0].text and provider.in_flight == len(STREAMS) + 1)
    run_id = readings["messages"].said[0]["run_id"]
    path = f"/v1/runs/{run_id}/events"
    readings["events"] = Reading(bob.http.stream("GET", path))
    others.append(Reading(ada.http.stream("GET", path)))
    await until(lambda: all("One" in one.text for one in (readings["events"], others[1])))

    model = readings.pop("models").task
    (key_id,) = [key["id"] for key in (await ada.get("/v1/keys"))["data"] if key["person"] == "bob"]
    assert (await ada.http.delete(f"/v1/keys/{key_id}")).status_code == 200
    await asyncio.gather(*(one.task for one in readings.values()))
    assert not any(one.task.done() for one in others)
    assert (await ada.get(f"/v1/runs/{run_id}"))["status"] in OPEN
    provider.release()
    await asyncio.gather(model, *(one.task for one in others))

    held = {name: one.status for name, one in readings.items() if "held" in name}
    assert held == {"responses, held": 401, "completions, held": 401}
    told = {name: one.said for name, one in readings.items()}
    assert not any("ten." in one.text for one in readings.values())
    assert [one["type"] for one in told["ag-ui"][-1:]] == ["RUN_ERROR"]
    assert [one["type"] for one in told["chat"][-1:]] == ["error"]
    assert "response.completed" not in [one["type"] for one in told["responses"]]
    assert {choice["finish_reason"] for one in told["completions"] for choice in one.get("choices", ())} == {None}
    assert all(one.text.endswith("\n\n") for name, one in readings.items() if "held" not in name), "no torn event"
    assert all("ten." in one.text and "run.completed" in one.text for one in others)


@pytest.mark.usefixtures("impatient")
async def test_a_stream_of_a_model_ends_with_a_line_that_says_why(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """And one that was read with a token ends when that expires; the run goes on, to be read with another one."""
    provider.script(*[Stalls(Text(_SAID), after=4)] * 2)
    async with new_identity_provider().running() as issuer:
        oidc = {"oidc_issuer": issuer.issuer, "oidc_audience": AUDIENCE}
        async with serving_api(stage.database_url, stage.task_queue, **oidc) as url:
            robert = Caller(url, issuer.token(tenant=ada.tenant_id), ada.tenant_id, "oidc:4711")
            stage.callers.append(robert)
            readings = [Reading(post(robert, name)) for name in ("messages", "models")]
            await until(lambda: all("One" in one.text for one in readings))
            with pytest.MonkeyPatch.context() as later:
                later.setattr(tokens, "LEEWAY_S", -3600)
                await readings[0].task
                provider.release()
                await readings[1].task
            read_on = await robert.http.get(f"/v1/runs/{readings[0].said[0]['run_id']}/events")

    assert [one.status for one in readings] == [200, 200]
    assert "run.completed" not in readings[0].text
    assert (readings[1].said[-1]["type"], readings[1].said[-1]["status"]) == ("error", 401)
    assert "run.completed" in read_on.text


async def opened(many: AsyncExitStack, request: Any) -> tuple[int, httpx.Headers]:
    """Open a stream and leave it open; answers with its status and headers."""
    response = await many.enter_async_context(request)
    return response.status_code, response.headers


@pytest.fixture
async def two_at_a_time(stage: Stage) -> AsyncIterator[str]:
    """An API with room for two streams a person."""
    async with serving_api(stage.database_url, stage.task_queue, streams_per_person=2) as url:
        yield url


async def test_a_person_has_so_many_streams_and_no_more(
    ada: Caller, stage: Stage, provider: ScriptedProvider, two_at_a_time: str
) -> None:
    url = two_at_a_time
    with_another_key = await stage.caller(ada.tenant_id, "ada")
    namesake = await stage.caller(new_tenant(), "ada")
    provider.script(*[Stalls(Text(_SAID), after=4)] * 4)
    run_ids = [await caller.start("count") for caller in (ada, namesake)]
    paths = [f"{url}/v1/runs/{run_id}/events" for run_id in run_ids]
    ask = {"agent": "support", "text": "and?"}

    async with AsyncExitStack() as one, AsyncExitStack() as another:
        assert (await opened(one, ada.http.stream("GET", paths[0])))[0] == 200
        assert (await opened(another, with_another_key.http.stream("GET", paths[0])))[0] == 200
        refused = {
            name: await ada.http.post(f"{url}{path}", json=body, headers=headers)
            for name, (path, body, headers) in STREAMS.items()
        }
        refused["events"] = await ada.http.get(paths[0])
        refused["a chat again"] = await ada.http.get(f"{url}/api/chat/a-chat/stream")
        assert {name: answer.status_code for name, answer in refused.items()} == dict.fromkeys(refused, 429)
        assert {answer.headers["content-type"] for answer in refused.values()} == {"application/problem+json"}
        assert {answer.headers["retry-after"] for answer in refused.values()} == {"5"}
        assert len((await ada.get("/v1/runs"))["data"]) == 1, "nothing was accepted"
        assert (await ada.http.post(f"{url}/v1/messages", json=ask)).status_code == 202
        assert (await ada.http.get(f"{url}/v1/runs/{run_ids[0]}")).status_code == 200
        async with AsyncExitStack() as hers:
            assert (await opened(hers, namesake.http.stream("GET", paths[1])))[0] == 200

        # Who leaves makes room; so does what could not be told, or was told.
        await one.aclose()
        unknown = [f"{url}/v1/runs/run_unknown/events", f"{url}/api/chat/a-chat/stream", f"{paths[0]}?follow=false"]
        await until(lambda: is_answered(ada, unknown[0], 404))
        for path, status in [(unknown[0], 404), (unknown[1], 204), (unknown[2], 200)] * 2:
            assert (await ada.http.get(path)).status_code == status
        wrong = await ada.http.post(f"{url}/v1/messages", json={**ask, "agent": "nobody"}, headers=_EVENTS)
        assert wrong.status_code == 422
        reading = Reading(ada.http.stream("GET", paths[0]))
        await until(lambda: "One" in reading.text)
        assert (await ada.http.get(paths[0])).status_code == 429
        provider.release()
        await reading.task
    assert "run.completed" in reading.text
    for _ in range(3):
        assert (await ada.http.get(paths[0])).status_code == 200


async def is_answered(caller: Caller, path: str, status: int) -> bool:
    return (await caller.http.get(path)).status_code == status


async def test_nobody_is_cut_off_because_nobody_can_tell_who_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[Known | Exception] = [
        Unavailable("away"),
        Known("t", "bob"),
        CredentialRefused("no"),
        Known("t", "bob"),
    ]

    async def caller(_: str) -> Known:
        found = known.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    access: Any = SimpleNamespace(caller=caller)
    too_soon = OpenStream(access, Known("t", "bob"), "hf_1", ExitStack())
    assert await too_soon.may_go_on()
    assert len(known) == 4
    monkeypatch.setattr(open_streams, "LOOK_AGAIN_S", 0)
    stream = OpenStream(access, Known("t", "bob"), "hf_1", ExitStack())
    assert [await stream.may_go_on() for _ in range(4)] == [True, True, False, False]
    assert len(known) == 1, "who was refused is not looked up again"


def test_whoever_lost_something_is_not_whom_they_were() -> None:
    before = Known("t", "bob", frozenset({"client", "billing"}), frozenset({"oidc:1"}))
    for same in (
        before,
        Known("t", "bob", before.roles | {"admin"}, before.names, key_id="key_2"),
        Known("t", "robert", before.roles, frozenset({"bob", "oidc:1"})),
    ):
        assert same.includes(before)
    for another in (
        Known("t", "bob", frozenset({"client"}), before.names),
        Known("t", "bob", before.roles),
        Known("t", "robert", before.roles, before.names),
        Known("u", "bob", before.roles, before.names),
    ):
        assert not another.includes(before)
