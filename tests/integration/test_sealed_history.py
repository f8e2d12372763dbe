"""With payload keys, nothing of a run can be read in Temporal's database: twenty canaries, and none is found.

A server with a database of its own is stopped, and the bytes of all its files are searched. The search finds what is
there: without keys it finds ids, and a canary that is put into a payload on purpose.
"""

import dataclasses
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.common import RawValue

from holdfast.dev.ports import free_port
from holdfast.dev.temporal import Temporal
from holdfast.secrecy.keyring import Keyring
from holdfast.temporal.converter import data_converter
from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import HttpError, Reply, Text, ToolCalls
from tests.conftest import new_tenant
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.servers import Servers
from tests.harness.stage import KEYRING, Stage, playing
from workflows import names


class Canaries:
    """Texts that can stand nowhere by chance, by what they are planted in."""

    def __init__(self) -> None:
        self.planted: dict[str, str] = {}

    def __call__(self, where: str) -> str:
        return self.planted.setdefault(where, f"canary{uuid.uuid4().hex}")


@asynccontextmanager
async def server_of_its_own(folder: Path) -> AsyncIterator[Temporal]:
    temporal = Temporal(folder / "temporal.sqlite", folder / "temporal.log", port=free_port(), ui_port=None)
    await temporal.start()
    try:
        yield temporal
    finally:
        temporal.stop()


def found(folder: Path, canaries: dict[str, str]) -> set[str]:
    """Which canaries stand in the bytes of a stopped server's files, its log included."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert sum(map(len, files)) > 100_000, "that is no database"
    forms = {where: (text.encode(), text.encode("utf-16-le")) for where, text in canaries.items()}
    return {where for where, written in forms.items() if any(form in file for form in written for file in files)}


def obeying(canary: Canaries) -> Any:
    """A model that calls each tool in its turn, and in the end replies; or fails, where it is told to."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("look_up", {"marker": canary("tool arguments and result")}),
        ("fail", {"marker": canary("tool error")}),
        ("pay", {"marker": canary("arguments that are confirmed"), "amount": 1}),
        ("send", {"marker": canary("arguments that are rejected")}),
    ]

    def reply(request: RecordedRequest) -> Reply:
        messages = request.body["messages"]
        if canary("a message whose model fails") in str(messages):
            return HttpError(500, canary("a provider's error"))
        asked = sum(message["role"] == "assistant" for message in messages)
        return ToolCalls([calls[asked]], canary("what the model says")) if asked < len(calls) else Text(canary("reply"))

    return reply


async def play(stage: Stage, canary: Canaries, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that end well, badly, and never, with a canary wherever one can be; answers with ids of runs."""
    ada = await stage.caller(new_tenant())
    stage.provider.default = obeying(canary)
    key = canary("provider key")
    assert (await ada.http.put("/v1/provider-keys/scripted", json={"key": key})).status_code == 200
    canary.planted["API key"] = ada.key
    run = await ada.ask(canary("message"), sender=canary("sender"), metadata={"about": canary("metadata")})
    edited = {"marker": canary("edited arguments"), "amount": 2}
    await ada.decide(await ada.only_pending(run), "edit", arguments=edited, reason=canary("reason of an edit"))
    run = await ada.run(run["id"])
    await ada.decide(await ada.only_pending(run), "reject", reason=canary("reason of a rejection"))
    ended = await ada.ended(run["id"])
    assert (ended["status"], ended["degraded"]) == ("completed", False)
    assert len(ended["tool_calls"]) == 4

    degraded = await ada.ask(canary("a message whose model fails"), agent="impatient")
    assert degraded["degraded"]
    failed = await _fails_unexpectedly(ada, canary, monkeypatch)
    waiting = await ada.start(canary("a message that is never answered"))
    await ada.run(waiting)
    return [run["id"], degraded["id"], failed, waiting]


async def _fails_unexpectedly(ada: Caller, canary: Canaries, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose activity raises what nobody foresaw, and goes on doing so for a while."""
    raised: list[str] = []
    cause, error = canary("an activity's cause"), canary("an activity's error")

    async def raises(*_: object) -> None:
        raised.append(error)
        raise RuntimeError(error) from ValueError(cause)

    with monkeypatch.context() as patch:
        patch.setattr("activities.model.ModelActivities._read", raises)
        run = await ada.start(canary("a message whose step fails"), agent="support")
        await until(lambda: len(raised) >= 2)
        await ada.http.post(f"/v1/runs/{run}/cancel")
    await ada.ended(run)
    return run


async def test_none_of_twenty_canaries_is_found_in_temporals_database(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = Canaries()
    monkeypatch.setenv("TEMPORAL_ADDRESS", "")
    async with server_of_its_own(tmp_path) as temporal:
        servers = dataclasses.replace(running_servers, temporal_address=temporal.address)
        async with playing(servers, provider, f"canaries-{uuid.uuid4().hex[:12]}") as stage:
            runs = await play(stage, canary, monkeypatch)
            workflow = await only_id_of(stage, runs[0])
    assert len(canary.planted) >= 20, sorted(canary.planted)

    assert found(tmp_path, canary.planted) == set()
    assert found(tmp_path, {run: run for run in runs}) == set()
    # What is known to be there is found.
    assert found(tmp_path, {"workflow id": workflow}) == {"workflow id"}


async def only_id_of(stage: Stage, run_id: str) -> str:
    (row,) = await stage.rows("SELECT message_id FROM runs WHERE run_id = $1", run_id)
    return str(row["message_id"])


async def test_the_search_finds_what_is_not_sealed(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = Canaries()
    monkeypatch.setenv("TEMPORAL_ADDRESS", "")
    async with server_of_its_own(tmp_path) as temporal:
        servers = dataclasses.replace(running_servers, temporal_address=temporal.address)
        name = f"canaries-{uuid.uuid4().hex[:12]}"
        async with playing(servers, provider, name, payload_keys=None) as stage:
            ada = await stage.caller(new_tenant())
            run = await ada.ask("hello")
            failed = await _fails_unexpectedly(ada, canary, monkeypatch)
            for keyring in (None, KEYRING):
                await _plant(stage.temporal, keyring, canary("sealed" if keyring else "plain"))
    assert found(tmp_path, {run["id"]: run["id"], failed: failed}) == {run["id"], failed}
    assert found(tmp_path, canary.planted) == {"an activity's cause", "an activity's error", "plain"}


async def _plant(temporal: Client, keyring: Keyring | None, text: str) -> None:
    client = Client(temporal.service_client, namespace=temporal.namespace, data_converter=data_converter(keyring))
    payload = data_converter(None).payload_converter.to_payloads([json.dumps({"text": text})])[0]
    workflow_id = f"t:nobody:{uuid.uuid4().hex}"
    await client.start_workflow(names.WORKFLOW, RawValue(payload), id=workflow_id, task_queue="nobody works here")
