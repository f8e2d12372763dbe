"""Sealed payloads: what a forged or foreign one does to a run, which is nothing; and keys that are replaced."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from holdfast.secrecy.keyring import Keyring, new_key
from holdfast.temporal.codec import SEALED, SealingCodec
from holdfast.temporal.converter import data_converter
from holdfast.testing.replies import ToolCalls
from tests.conftest import new_tenant
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import KEYRING, Stage
from workflows import names


def sealed(metadata: dict[str, bytes], data: bytes = b"garbage") -> Payload:
    return Payload(metadata={"encoding": SEALED, **metadata}, data=data)


async def of_another_tenant() -> Payload:
    (payload,) = await SealingCodec(KEYRING, "somebody-else").encode([Payload(metadata={"encoding": b"binary/null"})])
    return payload


async def forgeries() -> dict[str, Payload]:
    """Payloads that someone sends who reaches Temporal and has no key, or not for this tenant."""
    foreign = await of_another_tenant()
    return {
        "nothing": Payload(),
        "an encoding that nobody knows": Payload(metadata={"encoding": b"\xff\xfe"}, data=b"\x00"),
        "broken JSON": Payload(metadata={"encoding": b"json/plain"}, data=b"{"),
        "JSON nested deeply": Payload(metadata={"encoding": b"json/plain"}, data=b"[" * 100_000),
        "sealed, without a key's id": sealed({}),
        "sealed with a key that is not here": sealed({"encryption-key-id": b"newer"}),
        "sealed with a key whose id is no text": sealed({"encryption-key-id": b"\xff\xff"}),
        "garbage under a key that is here": sealed({"encryption-key-id": b"tests"}),
        "nothing under a key that is here": sealed({"encryption-key-id": b"tests"}, b""),
        "cut off": sealed(dict(foreign.metadata), foreign.data[:-1]),
        "another tenant's": foreign,
        "another tenant's, under this one's name": sealed({**foreign.metadata, "tenant": b"tenant"}, foreign.data),
        "a message that is no message": Payload(
            metadata={"encoding": b"binary/protobuf", "messageType": b"temporal.api.common.v1.Payload"}, data=b"\xff"
        ),
        "a reference to a store outside": Payload(metadata={"encoding": b"json/external-storage-reference"}, data=b"{}"),
        "a reference as a message": Payload(
            metadata={"encoding": b"json/protobuf", "messageType": b"temporal.api.sdk.v1.ExternalStorageReference"},
            data=b"{}",
        ),
        "a reference by its mark": Payload(metadata={"__temporal_external_storage_reference": b"true"}),
    }


async def signal(client: Client, workflow_id: str, *payloads: Payload) -> None:
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=workflow_id),
        signal_name=names.DECIDED,
        input=Payloads(payloads=payloads),
        request_id=uuid.uuid4().hex,
    )
    await client.workflow_service.signal_workflow_execution(request)


async def test_no_forged_payload_wedges_a_run(ada: Caller, stage: Stage) -> None:
    stage.provider.script(ToolCalls([("pay", {"marker": "m", "amount": 1})]))
    run = await ada.ask("pay")
    workflow_id = f"{ada.tenant_id}:support:{run['message_id']}"
    forged = await forgeries()
    for payload in forged.values():
        await signal(stage.temporal, workflow_id, payload)
    await signal(stage.temporal, workflow_id, *forged.values())
    assert (await ada.run(run["id"]))["status"] == "requires_confirmation"

    assert (await ada.decide(await ada.only_pending(run))).status_code == 200
    ended = await ada.ended(run["id"])

    assert (ended["status"], ended["tool_calls"][0]["status"]) == ("completed", "succeeded")


async def test_what_is_sealed_can_be_read_by_the_owner_of_the_keys_only(ada: Caller, stage: Stage) -> None:
    run = await ada.ask("hello")
    handle = stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{run['message_id']}")
    history = (await handle.fetch_history()).to_json()

    assert run["id"] not in history
    assert "binary/encrypted" in history
    assert "json/plain" not in history.replace("json/plain", "", history.count("TenantId"))
