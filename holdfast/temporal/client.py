"""The Temporal client, and the few things that are asked of it from outside a workflow.

Where to connect comes from Temporal's own variables and profiles (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`,
`TEMPORAL_API_KEY`, …), read by `temporalio.envconfig`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RetryConfig, RPCError, RPCStatusCode

from holdfast.domain.errors import ConfigurationError, Unavailable
from holdfast.domain.ids import workflow_id
from holdfast.domain.runs import RunToStart
from holdfast.domain.steps import DeliveryRef, MessageInput
from holdfast.secrecy.keyring import Keyring
from holdfast.temporal.converter import data_converter
from workflows import names

#: How long a caller may be kept waiting for Temporal. Nothing is lost by it: the outbox keeps the word.
PATIENCE = timedelta(seconds=1)

#: How long a call may take, whoever waits for it. Longer than a caller waits: a Temporal that has much to do would
#: break off at the deadline what it has nearly done, be asked the same again, and get less done the more there is.
CALL = timedelta(seconds=5)

#: How long a list may take, in all its pages: nobody waits for it.
_LISTED_WITHIN = timedelta(seconds=30)

# By default the client retries for ten seconds, whatever timeout a call is given.
_SHORT_RETRIES = RetryConfig(
    initial_interval_millis=100, max_interval_millis=500, max_elapsed_time_millis=1000, max_retries=2
)

_TENANT_ID = SearchAttributeKey.for_keyword(names.TENANT_ID)
_AGENT_NAME = SearchAttributeKey.for_keyword(names.AGENT_NAME)
_RUN_STATE = SearchAttributeKey.for_keyword(names.RUN_STATE)
_CONVERSATION_ID = SearchAttributeKey.for_keyword(names.CONVERSATION_ID)


Answer = TypeVar("Answer")

#: The calls that go on, some of them with nobody waiting any more: the loop itself keeps none of them alive.
_asked: set[asyncio.Task[Any]] = set()


async def connect(keyring: Keyring | None = None, *, lazy: bool = False) -> Client:
    """A client, connected as the environment says.

    Args:
        keyring: seals what is sent; None: nothing is sealed, and what was can't be read.
        lazy: connect at the first call, so that a process can start while Temporal is down.

    Raises:
        ConfigurationError: the variables or the profile don't make sense.
        Unavailable: Temporal does not answer (never when lazy).
    """
    try:
        config: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"TEMPORAL_*: {error}") from error
    config.setdefault("target_host", "localhost:7233")
    # Only callers outside of a worker are in a hurry; a worker's own calls are the SDK's to retry.
    retries = _SHORT_RETRIES if lazy else None
    try:
        return await Client.connect(
            **config, lazy=lazy, data_converter=data_converter(keyring), retry_config=retries, runtime=_runtime()
        )
    except RuntimeError as error:
        raise Unavailable(f"Temporal can't be reached at {config['target_host']}.") from error


@cache
def _runtime() -> Runtime:
    """The SDK's own part, whose lines go to our log, where secrets are taken out, and not straight to the terminal."""
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    lines = LoggingConfig(TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding)
    return Runtime(telemetry=TelemetryConfig(logging=lines))


async def missing_search_attributes(client: Client) -> list[str]:
    """The search attributes that the namespace lacks; without them no workflow starts."""
    response = await _in_time(
        client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
    )
    return [name for name in names.SEARCH_ATTRIBUTES if name not in response.custom_attributes]


class MessageWorkflows:
    """Starts, wakes and looks at message workflows. Each call raises `Unavailable` when Temporal does not answer.

    Args:
        client: as `connect` makes it.
        task_queue: where the workers are.
        patience: how long Temporal is waited for. A call that takes longer goes on by itself, for `CALL` in all.
    """

    def __init__(self, client: Client, task_queue: str, patience: timedelta = PATIENCE) -> None:
        self._client = client
        self._task_queue = task_queue
        self._patience = patience

    async def start(self, run: RunToStart) -> None:
        """Start a run's workflow; started before, it stays as it is."""
        start = self._client.start_workflow(
            names.WORKFLOW,
            MessageInput(tenant_id=run.tenant_id, run_id=run.run_id, agent=run.agent),
            id=workflow_id(run.tenant_id, run.agent, run.message_id),
            task_queue=self._task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=_search_attributes(run),
            static_summary=f"message to {run.agent}",
            # What one tenant has waiting is not served before another tenant's; the activities inherit it.
            priority=Priority(fairness_key=run.tenant_id),
            rpc_timeout=CALL,
        )
        with contextlib.suppress(WorkflowAlreadyStartedError):
            await _in_time(start, self._patience)

    async def wake_decided(self, workflow: str, confirmation_id: str) -> None:
        """Tell a workflow that a confirmation was decided; a workflow that has ended has no need of it."""
        handle = self._client.get_workflow_handle(workflow)
        with contextlib.suppress(_Unknown):
            await _in_time(handle.signal(names.DECIDED, confirmation_id, rpc_timeout=CALL), self._patience)

    async def wake_freed(self, workflow: str) -> None:
        """Tell a workflow to look for its turn; one that has ended has no need of it."""
        handle = self._client.get_workflow_handle(workflow)
        with contextlib.suppress(_Unknown):
            await _in_time(handle.signal(names.TURN_FREED, rpc_timeout=CALL), self._patience)

    async def cancel(self, workflow: str) -> None:
        """Ask a workflow to cancel itself. Raises `Unavailable` also for one that is not known, or not yet."""
        await _in_time(self._client.get_workflow_handle(workflow).cancel(rpc_timeout=CALL), self._patience)

    async def ended_from_outside(self, since: datetime | None) -> list["EndedWorkflow"]:
        """The workflows that ended otherwise than by their own last step, since a moment or as far as is remembered."""
        query = f"WorkflowType = '{names.WORKFLOW}' AND ExecutionStatus IN ('Terminated', 'TimedOut', 'Failed')"
        if since is not None:
            query += f" AND CloseTime > '{since.isoformat()}'"
        found = [EndedWorkflow.of(workflow) for workflow in await self._list(query)]
        return [workflow for workflow in found if workflow is not None]

    async def stuck(self) -> list[str]:
        """The open workflows whose task has failed several times in a row."""
        query = (
            f"WorkflowType IN ('{names.WORKFLOW}', '{names.DELIVERY_WORKFLOW}') AND ExecutionStatus = 'Running'"
            " AND TemporalReportedProblems = 'category=WorkflowTaskFailed'"
        )
        return await self._list(query)

    async def _list(self, query: str) -> list[str]:
        async def ids() -> list[str]:
            return [workflow.id async for workflow in self._client.list_workflows(query, rpc_timeout=_LISTED_WITHIN)]

        return await _in_time(ids(), _LISTED_WITHIN)

    async def is_open(self, workflow: str) -> bool:
        """Whether a workflow runs. False: it ended, was terminated, or is not known any more."""
        try:
            description = await _in_time(
                self._client.get_workflow_handle(workflow).describe(rpc_timeout=CALL), self._patience
            )
        except _Unknown:
            return False
        return description.status is WorkflowExecutionStatus.RUNNING


class DeliveryWorkflows:
    """Starts the workflows of deliveries."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    async def start(self, delivery: DeliveryRef) -> None:
        """Start a delivery's workflow; one that runs, or has settled it, stays as it is.

        Raises:
            Unavailable: Temporal does not answer.
        """
        start = self._client.start_workflow(
            names.DELIVERY_WORKFLOW,
            delivery,
            id=delivery.workflow_id,
            task_queue=self._task_queue,
            # One that was terminated from outside has settled nothing: another takes its place.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            search_attributes=TypedSearchAttributes([SearchAttributePair(_TENANT_ID, delivery.tenant_id)]),
            static_summary="delivery",
            priority=Priority(fairness_key=delivery.tenant_id),
            rpc_timeout=CALL,
        )
        with contextlib.suppress(WorkflowAlreadyStartedError):
            await _in_time(start, CALL)


@dataclass(frozen=True)
class EndedWorkflow:
    """A message workflow that ended, by what its id names."""

    workflow_id: str
    tenant_id: str
    message_id: str

    @classmethod
    def of(cls, workflow: str) -> "EndedWorkflow | None":
        """None: the id is none of ours."""
        parts = workflow.split(":")
        return cls(workflow, parts[0], parts[2]) if len(parts) == 3 else None


class _Unknown(Unavailable):
    """Temporal knows no such workflow, or no such namespace."""


async def _in_time(call: Coroutine[Any, Any, Answer], patience: timedelta = PATIENCE) -> Answer:
    # `rpc_timeout` bounds one attempt; only this bounds them all, the connecting included.
    asked = asyncio.create_task(asyncio.wait_for(call, max(patience, CALL).total_seconds()))
    _asked.add(asked)
    asked.add_done_callback(_answered)
    try:
        # Not `wait_for`: before Python 3.12, a cancellation that comes along with the answer is lost in it.
        async with asyncio.timeout(patience.total_seconds()):
            return await asyncio.shield(asked)
    except TimeoutError as error:
        raise Unavailable("Temporal does not answer.") from error
    except RPCError as error:
        kind = _Unknown if error.status is RPCStatusCode.NOT_FOUND else Unavailable
        raise kind(f"Temporal refuses the call: {error.status.name}.") from error
    except RuntimeError as error:
        # What the SDK raises when a lazy client can't connect.
        raise Unavailable("Temporal can't be reached.") from error


def _answered(asked: asyncio.Task[Any]) -> None:
    _asked.discard(asked)
    if not asked.cancelled():
        # Taken note of: whoever waited has been told of an error, or was told before that Temporal does not answer.
        asked.exception()


def _search_attributes(run: RunToStart) -> TypedSearchAttributes:
    # RunState is `running` from the start: most runs never wait, and each change costs an event.
    return TypedSearchAttributes(
        [
            SearchAttributePair(_TENANT_ID, run.tenant_id),
            SearchAttributePair(_AGENT_NAME, run.agent),
            SearchAttributePair(_RUN_STATE, "running"),
            SearchAttributePair(_CONVERSATION_ID, run.conversation_id),
        ]
    )
