"""The activities as workflows see them: one typed function each, which owns its name, timeouts, retries and summary.

Local activities are short steps on the database: they cost no round trip to the server and no event but a marker.
Regular ones can be slow or fail outside: they heartbeat, and run again elsewhere when their worker dies.

The activities themselves are called by name, since importing them would bring the database and the models into the
sandbox. A test compares each stub's name and types with the activity that is registered.
"""

from datetime import timedelta

from holdfast.domain.steps import (
    CallRef,
    ConfirmationCheck,
    ConfirmationOutcome,
    ConfirmationRequested,
    DeliveryOutcome,
    DeliveryRef,
    Finish,
    ModelAnswer,
    ModelStep,
    RunRef,
    ToolOutcome,
    Turn,
    TurnPassed,
)
from temporalio import workflow
from temporalio.common import Priority, RetryPolicy

#: A database step takes milliseconds; one that does not is tried again, until the database is back.
_DATABASE_STEP = timedelta(seconds=10)
_UNTIL_IT_WORKS = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30), backoff_coefficient=2
)

#: A local activity that is to wait longer than this before its next attempt waits by a timer of the workflow. Without
#: it, the workflow's task would be kept alive by heartbeats, three events each: an outage of days would fill a history.
_LONGEST_WAIT_IN_PLACE = timedelta(seconds=5)

#: A worker that died is noticed within this time, and the step begins again elsewhere.
HEARTBEAT_TIMEOUT = timedelta(seconds=5)

#: What the slowest attempt at a model call may take: the agent's patience ends it before.
_MODEL_ATTEMPT = timedelta(hours=1)
_MODEL_RETRIES = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=15), backoff_coefficient=2
)

#: A run that has begun, and maybe waited for a person since, goes on before a new message is looked at. Among equals
#: the fairness key says whose turn it is; that is the workflow's own, its tenant.
_GOES_ON = Priority(priority_key=2)

#: What reserving and settling may add to a tool's own timeout. Long: a result is held until the database takes it.
_AROUND_A_TOOL = timedelta(minutes=10)

#: What one attempt at a delivery may take. When to try again, the activity says itself; this is for its own failures.
_DELIVERY_ATTEMPT = timedelta(minutes=2)
_DELIVERY_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5), backoff_coefficient=2
)

#: Type of error with which `call_model` says that the agent's patience has run out.
MODELS_EXHAUSTED = "ModelsExhausted"


async def begin_turn(run: RunRef) -> Turn:
    """Take the conversation's turn, or learn that an earlier run has it."""
    turn: Turn = await workflow.execute_local_activity(
        "begin_turn",
        run,
        result_type=Turn,
        start_to_close_timeout=_DATABASE_STEP,
        retry_policy=_UNTIL_IT_WORKS,
        local_retry_threshold=_LONGEST_WAIT_IN_PLACE,
        summary="take the conversation's turn",
    )
    return turn


async def reclaim_turn(run: RunRef) -> None:
    """End the runs in front of this one whose workflows were terminated from outside."""
    await workflow.execute_activity(
        "reclaim_turn",
        run,
        result_type=type(None),
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=_UNTIL_IT_WORKS,
        summary="look whether the runs in front are still alive",
    )


async def call_model(step: ModelStep, alias: str) -> ModelAnswer:
    """Ask the model. Raises an ActivityError of type `MODELS_EXHAUSTED` when the agent's patience has run out."""
    answer: ModelAnswer = await workflow.execute_activity(
        "call_model",
        step,
        result_type=ModelAnswer,
        start_to_close_timeout=_MODEL_ATTEMPT,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_MODEL_RETRIES,
        priority=_GOES_ON if step.step > 1 else Priority.default,
        summary=f"model {alias}, step {step.step}",
    )
    return answer


async def request_confirmation(call: CallRef, tool: str) -> ConfirmationRequested:
    """Ask for a person's confirmation of a call."""
    requested: ConfirmationRequested = await workflow.execute_local_activity(
        "request_confirmation",
        call,
        result_type=ConfirmationRequested,
        start_to_close_timeout=_DATABASE_STEP,
        retry_policy=_UNTIL_IT_WORKS,
        local_retry_threshold=_LONGEST_WAIT_IN_PLACE,
        summary=f"ask for confirmation of {tool}",
    )
    return requested


async def check_confirmation(check: ConfirmationCheck, tool: str) -> ConfirmationOutcome:
    """Read what became of a confirmation, and expire it if its deadline has passed."""
    outcome: ConfirmationOutcome = await workflow.execute_local_activity(
        "check_confirmation",
        check,
        result_type=ConfirmationOutcome,
        start_to_close_timeout=_DATABASE_STEP,
        retry_policy=_UNTIL_IT_WORKS,
        local_retry_threshold=_LONGEST_WAIT_IN_PLACE,
        summary=f"read the decision on {tool}",
    )
    return outcome


async def execute_tool(call: CallRef, tool: str, allowed: timedelta, *, only_reads: bool) -> ToolOutcome:
    """Reserve a call in the ledger, run it, settle it.

    A tool that only reads may begin anew at will, so it runs where the workflow does, and costs no round trip.
    """
    outcome: ToolOutcome
    if only_reads:
        outcome = await workflow.execute_local_activity(
            "execute_tool",
            call,
            result_type=ToolOutcome,
            start_to_close_timeout=allowed + _AROUND_A_TOOL,
            retry_policy=_UNTIL_IT_WORKS,
            local_retry_threshold=_LONGEST_WAIT_IN_PLACE,
            summary=f"run {tool}",
        )
    else:
        outcome = await workflow.execute_activity(
            "execute_tool",
            call,
            result_type=ToolOutcome,
            start_to_close_timeout=allowed + _AROUND_A_TOOL,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_UNTIL_IT_WORKS,
            priority=_GOES_ON,
            # A run that is cancelled ends when it is known what became of its tool, or that this can't be known.
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"run {tool}",
        )
    return outcome


async def finish_turn(finish: Finish) -> TurnPassed:
    """Store the reply, end the run, free the turn."""
    passed: TurnPassed = await workflow.execute_local_activity(
        "finish_turn",
        finish,
        result_type=TurnPassed,
        start_to_close_timeout=_DATABASE_STEP,
        retry_policy=_UNTIL_IT_WORKS,
        local_retry_threshold=_LONGEST_WAIT_IN_PLACE,
        summary=f"finish: {finish.ending}",
    )
    return passed


async def deliver(delivery: DeliveryRef) -> DeliveryOutcome:
    """Tell a receiver of an event, again and again until it takes it, or has had its time. Retries leave no event."""
    outcome: DeliveryOutcome = await workflow.execute_activity(
        "deliver",
        delivery,
        result_type=DeliveryOutcome,
        start_to_close_timeout=_DELIVERY_ATTEMPT,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_DELIVERY_RETRIES,
        summary="deliver",
    )
    return outcome
