"""Sealed payloads: what a forged or foreign one does to a run, which is nothing; and keys that are replaced."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, RetryState
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
        "a reference to a store outside": Payload(
            metadata={"encoding": b"json/external-storage-reference"}, data=b"{}"
        ),
        "a reference as a message": Payload(
            metadata={"encoding": b"json/protobuf", "messageType": b"temporal.api.sdk.v1.ExternalStorageReference"},
            data=b"{}",
        ),
        "a reference by its mark": Payload(metadata={"__temporal_external_storage_reference": b"true"}),
    }


def with_converter(client: Client, keyring: Keyring | None) -> Client:
    return Client(client.service_client, namespace=client.namespace, data_converter=data_converter(keyring))


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


async def test_no_id_stands_in_a_history_in_the_clear(ada: Caller, stage: Stage) -> None:
    run = await ada.ask("hello")
    handle = stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{run['message_id']}")
    events = b"".join([event.SerializeToString() for event in (await handle.fetch_history()).events])

    assert run["id"].encode() not in events
    # It was looked for in the right place.
    assert run["message_id"].encode() in events
    assert events.count(SEALED) >= 5


@pytest.mark.parametrize("name", ["garbage under a key that is here", "another tenant's", "a reference by its mark"])
async def test_a_run_that_was_begun_by_a_forged_argument_fails(stage: Stage, name: str) -> None:
    forged = (await forgeries())[name]
    # As it is, for want of a key.
    stranger = with_converter(stage.temporal, None)
    handle = await stranger.start_workflow(
        names.WORKFLOW,
        RawValue(forged),
        id=f"{new_tenant()}:support:forged",
        task_queue=stage.task_queue,
    )
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    assert isinstance(raised.value.cause, ApplicationError)


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class Doubling:
    """Doubles a number when it is told to."""

    def __init__(self) -> None:
        self._told = False

    @workflow.run
    async def run(self, number: int) -> int:
        await workflow.wait_condition(lambda: self._told)
        doubled: int = await workflow.execute_activity(
            double, number, start_to_close_timeout=timedelta(seconds=10), retry_policy=_AT_ONCE
        )
        return doubled

    @workflow.signal
    def tell(self) -> None:
        self._told = True


@workflow.defn
class Forwarding:
    """Hands what it was given on to a step, as it is."""

    @workflow.run
    async def run(self, payload: RawValue) -> int:
        doubled: int = await workflow.execute_activity(
            "double", payload, result_type=int, start_to_close_timeout=timedelta(seconds=10), retry_policy=_AT_ONCE
        )
        return doubled


_AT_ONCE = RetryPolicy(initial_interval=timedelta(milliseconds=50), backoff_coefficient=1)


@dataclass
class Bench:
    """A task queue for doubling, at which workers with various keys can work."""

    temporal: Client
    task_queue: str

    def client(self, *keys: str) -> Client:
        return with_converter(self.temporal, Keyring.parse(",".join(keys)) if keys else None)

    @asynccontextmanager
    async def working(self, *keys: str) -> AsyncIterator[None]:
        worker = Worker(
            self.client(*keys),
            task_queue=self.task_queue,
            workflows=[Doubling],
            activities=[double],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_cached_workflows=0,
        )
        async with worker:
            yield

    async def begun(self, number: int, *keys: str) -> WorkflowHandle[Doubling, int]:
        return await self.client(*keys).start_workflow(
            Doubling.run, number, id=f"t:doubling:{uuid.uuid4().hex}", task_queue=self.task_queue
        )

    @asynccontextmanager
    async def handing_on(self, payload: Payload, *keys: str) -> AsyncIterator[WorkflowHandle[Forwarding, int]]:
        """A run whose step, done with these keys, is given this payload as it is: whoever decided seals nothing."""
        client = self.client()
        decides = Worker(
            client, task_queue=self.task_queue, workflows=[Forwarding], workflow_runner=UnsandboxedWorkflowRunner()
        )
        async with decides, Worker(self.client(*keys), task_queue=self.task_queue, activities=[double]):
            yield await client.start_workflow(
                Forwarding.run,
                RawValue(payload),
                id=f"t:forwarding:{uuid.uuid4().hex}",
                task_queue=self.task_queue,
            )


@pytest.fixture
def bench(stage: Stage) -> Bench:
    return Bench(stage.temporal, f"doubling-{uuid.uuid4().hex[:12]}")


async def has_failed_a_task(handle: WorkflowHandle[Any, int]) -> bool:
    info = (await handle.describe()).raw_description
    return info.pending_workflow_task.attempt > 1


OLD, NEW = new_key("old"), new_key("new")


async def test_keys_are_replaced_while_runs_are_open(bench: Bench) -> None:
    # Each worker replays what the one before it left: nothing is cached.
    async with bench.working():
        plain = await bench.begun(1)
        await until_begun(plain)
    async with bench.working(OLD):
        old = await bench.begun(2, OLD)
        await until_begun(old)
    async with bench.working(OLD, NEW):
        added = await bench.begun(3, OLD, NEW)
        await until_begun(added)
    async with bench.working(NEW, OLD):
        moved = await bench.begun(4, NEW, OLD)
        handles = [bench.client(NEW, OLD).get_workflow_handle(begun.id) for begun in (plain, old, added, moved)]
        for handle in handles:
            await handle.signal(Doubling.tell)
        assert [await handle.result() for handle in handles] == [2, 4, 6, 8]


async def until_begun(handle: WorkflowHandle[Doubling, int]) -> None:
    async def has_begun() -> bool:
        events = (await handle.fetch_history()).events
        return any(event.HasField("workflow_task_completed_event_attributes") for event in events)

    await until(has_begun)


async def test_a_worker_that_lacks_the_newest_key_costs_time_and_no_run(bench: Bench) -> None:
    handle = await bench.begun(5, NEW, OLD)
    await handle.signal(Doubling.tell)
    async with bench.working(OLD):
        await until(lambda: has_failed_a_task(handle))
    async with bench.working(OLD, NEW):
        assert await handle.result() == 10


async def test_an_activity_whose_argument_cant_be_opened_waits_for_a_worker_that_can(bench: Bench) -> None:
    async with bench.working(NEW, OLD):
        handle = await bench.begun(6, NEW, OLD)
        await until_begun(handle)
    # One worker decides with the new key, another acts without it.
    decides = Worker(
        bench.client(NEW, OLD),
        task_queue=bench.task_queue,
        workflows=[Doubling],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    acts = Worker(bench.client(OLD), task_queue=bench.task_queue, activities=[double])
    async with decides:
        await handle.signal(Doubling.tell)
        async with acts:
            await until(lambda: has_failed_an_activity(handle))
        async with Worker(bench.client(OLD, NEW), task_queue=bench.task_queue, activities=[double]):
            assert await handle.result() == 12


async def has_failed_an_activity(handle: WorkflowHandle[Any, int]) -> bool:
    pending = (await handle.describe()).raw_description.pending_activities
    return any(activity.attempt > 1 for activity in pending)


@pytest.mark.parametrize(
    "forged", [sealed({"encryption-key-id": b"old"}), Payload(metadata={"__temporal_external_storage_reference": b"1"})]
)
async def test_a_step_with_a_forged_argument_fails_and_is_not_tried_again(bench: Bench, forged: Payload) -> None:
    async with bench.handing_on(forged, OLD) as handle:
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()
    assert isinstance(raised.value.cause, ActivityError)
    assert raised.value.cause.retry_state is RetryState.NON_RETRYABLE_FAILURE


async def test_a_run_whose_step_waits_for_a_key_can_be_cancelled(bench: Bench) -> None:
    async with bench.handing_on(sealed({"encryption-key-id": b"newer"}), OLD) as handle:
        await until(lambda: has_failed_an_activity(handle))
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()
    assert isinstance(raised.value.cause, CancelledError)
