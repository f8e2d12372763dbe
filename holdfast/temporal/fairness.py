"""Does the server serve tenants in turn? It says nowhere whether it does, so it is tried.

Without `matching.enableFairness` the server accepts fairness keys and ignores them. Here, on a task queue that nobody
else knows, much is queued under one key and then a little under another. In turn, some of the little is among the first
to come; otherwise none of it comes before one of the queue's partitions has given away all it has of the much.
"""

import asyncio
import contextlib
import uuid
from datetime import timedelta

from temporalio.api.command.v1 import Command, CompleteWorkflowExecutionCommandAttributes
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import CommandType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    PollWorkflowTaskQueueRequest,
    RespondWorkflowTaskCompletedRequest,
)
from temporalio.client import Client
from temporalio.common import Priority
from temporalio.service import RPCError

from holdfast.domain.errors import Unavailable

_WORKFLOW = "HoldfastDoctor"
_MUCH, _LITTLE = 80, 12

#: The workflows: under which key, and the number there.
_ALL = (*(("much", one) for one in range(_MUCH)), *(("little", one) for one in range(_LITTLE)))

#: How many come first. Each partition (there are four by default) has about twenty of the much.
_FIRST = 8

_PATIENCE_S = 30

#: Each poll asks one of the queue's partitions, which may be empty while others are not.
_POLL_S = 2


async def is_fair(client: Client) -> bool:
    """Queue short workflows under two keys, end each as it comes, and look in which order they came.

    Raises:
        Unavailable: the server does not answer, or not in time.
    """
    queue = f"holdfast-doctor-{uuid.uuid4().hex[:12]}"
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for kind in ("much", "little"):
                await asyncio.gather(*(_start(client, queue, key, one) for key, one in _ALL if key == kind))
            came = [await _next(client, queue) for _ in _ALL]
    except TimeoutError:
        raise Unavailable(f"Temporal did not hand out {len(_ALL)} tasks in {_PATIENCE_S} s.") from None
    except RPCError as error:
        raise Unavailable(f"Temporal refuses the call: {error.status.name}.") from error
    await _forget(client, queue)
    return "little" in came[:_FIRST]


async def _start(client: Client, queue: str, key: str, number: int) -> None:
    await client.start_workflow(
        _WORKFLOW,
        id=_id(queue, key, number),
        task_queue=queue,
        priority=Priority(fairness_key=key),
        # Nothing of it is to stay open if this ends early.
        execution_timeout=timedelta(seconds=_PATIENCE_S),
    )


async def _forget(client: Client, queue: str) -> None:
    """Leave nothing of it in anybody's lists, where that is allowed."""
    with contextlib.suppress(RPCError, TimeoutError):
        async with asyncio.timeout(_POLL_S):
            await asyncio.gather(*(_delete(client, queue, key, one) for key, one in _ALL))


async def _delete(client: Client, queue: str, key: str, number: int) -> None:
    execution = WorkflowExecution(workflow_id=_id(queue, key, number))
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
    )


def _id(queue: str, key: str, number: int) -> str:
    return f"{queue}-{key}-{number}"


async def _next(client: Client, queue: str) -> str:
    """Take the next workflow off the queue, end it, and say under which key it was queued."""
    poll = PollWorkflowTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=queue), identity="holdfast doctor"
    )
    while True:
        try:
            async with asyncio.timeout(_POLL_S):
                task = await client.workflow_service.poll_workflow_task_queue(poll)
        except TimeoutError:
            continue
        if task.task_token:
            break
    ends = Command(
        command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        complete_workflow_execution_command_attributes=CompleteWorkflowExecutionCommandAttributes(),
    )
    await client.workflow_service.respond_workflow_task_completed(
        RespondWorkflowTaskCompletedRequest(namespace=client.namespace, task_token=task.task_token, commands=[ends])
    )
    return task.workflow_execution.workflow_id.removeprefix(f"{queue}-").partition("-")[0]
