"""MessageWorkflow: one message, from its turn to its reply.

It decides only: what a step needs and what it brings stands in PostgreSQL, by id. Its history grows by a constant per
model call, whatever the length of the conversation.
"""

import asyncio
import contextlib
from datetime import timedelta

from holdfast.domain.confirmations import RAISE_BUDGET, ConfirmationStatus
from holdfast.domain.steps import (
    CallRef,
    ConfirmationOutcome,
    ConfirmationRequested,
    Ending,
    Finish,
    MessageInput,
    ModelAnswer,
    ModelStep,
    NextAct,
    ProposedCall,
    RunRef,
    Turn,
)
from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

from workflows import names, stubs
from workflows.confirmation import Decisions

_RUN_STATE = SearchAttributeKey.for_keyword(names.RUN_STATE)
_PENDING_TOOL = SearchAttributeKey.for_keyword(names.PENDING_TOOL)

#: How long to wait for the turn before looking whether the runs in front are still alive; doubled up to the longest.
_FIRST_LOOK = timedelta(seconds=5)
_LONGEST_LOOK = timedelta(hours=1)

_STATE_AT_END = {
    Ending.UNEXPECTED_ERROR: "failed",
    Ending.CANCELLED: "cancelled",
    Ending.NOT_CONFIRMED: "cancelled",
}


@workflow.defn(name=names.WORKFLOW)
class MessageWorkflow:
    """Handles one message. Its id is `{tenant}:{agent}:{message}`."""

    @workflow.init
    def __init__(self, message: MessageInput) -> None:
        # Signals may be handled before `run` begins, so what they touch is made here.
        self._message = message
        self._run = RunRef(message.tenant_id, message.run_id)
        self._decisions = Decisions()
        self._turn_freed = False
        self._waiting_for: list[str] = []
        self._steps_answered = 0
        self._early_ending: Ending | None = None

    @workflow.run
    async def run(self, message: MessageInput) -> str:
        """Answers with how the run ended."""
        try:
            ending = await self._answer()
        except Exception as error:
            if is_cancelled_exception(error):
                return await self._finish(Ending.CANCELLED)
            await self._fail(error)
            raise ApplicationError(f"the run ended by an unexpected error: {error!r}", non_retryable=True) from error
        except asyncio.CancelledError:
            return await self._finish(Ending.CANCELLED)
        return "ended before" if ending is None else await self._finish(ending)

    @workflow.signal(name=names.DECIDED)
    def decided(self, confirmation_id: str) -> None:
        """Wakes the wait for a confirmation. Decides nothing: what was decided is read from PostgreSQL."""
        self._decisions.wake(confirmation_id)

    @workflow.signal(name=names.TURN_FREED)
    def turn_freed(self) -> None:
        """Wakes the wait for the conversation's turn."""
        self._turn_freed = True

    async def _answer(self) -> Ending | None:
        turn = await self._take_turn()
        if turn.ended_before:
            return None
        if turn.is_cancelled:
            return Ending.CANCELLED
        if turn.timeout_s:
            self._decisions.run_ends_at = workflow.now() + timedelta(seconds=turn.timeout_s)
        return await self._work(turn)

    async def _work(self, turn: Turn) -> Ending:
        is_last = False
        for step in range(1, turn.max_steps + 1):
            if self._is_out_of_time():
                return Ending.OUT_OF_TIME
            answer = await self._ask(step, turn.model, is_last=is_last or step == turn.max_steps)
            if isinstance(answer, Ending):
                return answer
            await asyncio.gather(*(self._handle(call) for call in answer.calls))
            if self._early_ending is not None:
                return self._early_ending
            if any(call.act is NextAct.HAND_OVER for call in answer.calls):
                return Ending.HANDED_OVER
            is_last = answer.tools_used_up
        return Ending.OUT_OF_STEPS

    async def _ask(self, step: int, alias: str, *, is_last: bool) -> ModelAnswer | Ending:
        """The model's next wishes; or how the run ends, when it has none or is not asked any more."""
        model_step = ModelStep(self._run.tenant_id, self._run.run_id, step, last=is_last)
        try:
            answer = await stubs.call_model(model_step, alias)
            while answer.asked is not None:
                if (ending := await self._wait_for_room(answer.asked)) is not None:
                    return ending
                answer = await stubs.call_model(model_step, alias)
        except ActivityError as error:
            if _is_exhausted(error):
                return Ending.MODELS_EXHAUSTED
            raise
        if answer.is_over_budget:
            return Ending.OUT_OF_BUDGET
        self._steps_answered = step
        return answer if answer.calls else Ending.REPLIED

    async def _wait_for_room(self, asked: ConfirmationRequested) -> Ending | None:
        """Wait for a person to raise the tenant's budget. None: it is another now, and there may be room."""
        outcome = await self._wait_for_person(RAISE_BUDGET, asked)
        if self._early_ending is not None:
            return self._early_ending
        is_another = outcome.status in (ConfirmationStatus.APPROVED, ConfirmationStatus.WITHDRAWN)
        return None if is_another else Ending.OUT_OF_BUDGET

    def _is_out_of_time(self) -> bool:
        ends_at = self._decisions.run_ends_at
        return ends_at is not None and workflow.now() >= ends_at

    async def _take_turn(self) -> Turn:
        turn = await stubs.begin_turn(self._run)
        if turn.taken:
            return turn
        self._show_state("queued")
        patience = _FIRST_LOOK
        while not turn.taken:
            await self._wait_for_turn(patience)
            if workflow.info().is_continue_as_new_suggested():
                # Behind a confirmation of months, looking adds up; a run that only waits has nothing to carry over.
                workflow.continue_as_new(self._message)
            turn = await stubs.begin_turn(self._run)
            patience = min(patience * 2, _LONGEST_LOOK)
        self._show_state("running")
        return turn

    async def _wait_for_turn(self, patience: timedelta) -> None:
        try:
            await workflow.wait_condition(
                lambda: self._turn_freed, timeout=patience, timeout_summary="the turn, then look who holds it"
            )
        except TimeoutError:
            # A run that was terminated from outside frees no turn and wakes nobody.
            await stubs.reclaim_turn(self._run)
        self._turn_freed = False

    async def _handle(self, call: ProposedCall) -> None:
        if call.act in (NextAct.SKIP, NextAct.HAND_OVER):
            return
        reference = CallRef(self._run.tenant_id, self._run.run_id, call.tool_call_id)
        if call.act is NextAct.CONFIRM:
            requested = await stubs.request_confirmation(reference, call.tool)
            decided = await self._wait_for_person(call.tool, requested)
            if decided.status is not ConfirmationStatus.APPROVED:
                return
        await self._execute(reference, call)

    async def _execute(self, reference: CallRef, call: ProposedCall) -> None:
        """Run a call; again only if its outcome is unknown and a person says so."""
        allowed = timedelta(seconds=call.timeout_s)
        while self._early_ending is None:
            outcome = await stubs.execute_tool(reference, call.tool, allowed, only_reads=call.only_reads)
            if outcome.asked is None:
                return
            resolved = await self._wait_for_person(call.tool, outcome.asked)
            if not resolved.runs_again:
                return

    async def _wait_for_person(self, tool: str, requested: ConfirmationRequested) -> ConfirmationOutcome:
        self._waiting_for.append(tool)
        self._show_waiting()
        outcome = await self._decisions.wait_for(self._run, tool, requested)
        self._waiting_for.remove(tool)
        if outcome.cancels_run:
            self._end_early(Ending.NOT_CONFIRMED)
        elif self._is_out_of_time():
            self._end_early(Ending.OUT_OF_TIME)
        self._show_waiting()
        return outcome

    def _end_early(self, ending: Ending) -> None:
        """End the run when the tools that are running have ended; whatever waits for a person is withdrawn."""
        self._early_ending = self._early_ending or ending
        self._decisions.stop()

    async def _finish(self, ending: Ending) -> str:
        finish = Finish(self._run.tenant_id, self._run.run_id, ending, self._steps_answered)
        # In a task of its own, and waited for whatever comes: a cancellation in this moment must leave no turn held.
        finishing = asyncio.ensure_future(stubs.finish_turn(finish))
        while not finishing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(finishing)
        passed = finishing.result()
        self._show_state(_STATE_AT_END.get(ending, "completed"))
        if passed.next_workflow_id is not None:
            await self._wake(passed.next_workflow_id)
        return ending.value

    async def _wake(self, workflow_id: str) -> None:
        try:
            await workflow.get_external_workflow_handle(workflow_id).signal(names.TURN_FREED)
        except FailureError:
            # Not started yet, or gone: it looks for itself when it runs.
            workflow.logger.info("the next run of the conversation could not be woken")

    async def _fail(self, error: Exception) -> None:
        workflow.logger.error("run %s ended by an unexpected error: %r", self._run.run_id, error)
        await self._finish(Ending.UNEXPECTED_ERROR)

    def _show_waiting(self) -> None:
        if self._waiting_for:
            self._show_state("requires_confirmation", self._waiting_for[0])
        else:
            self._show_state("running")

    def _show_state(self, state: str, pending_tool: str | None = None) -> None:
        """For the person who opens the Temporal UI; each change costs one event."""
        updates = [_RUN_STATE.value_set(state)]
        if pending_tool is not None:
            updates.append(_PENDING_TOOL.value_set(pending_tool))
            workflow.set_current_details(f"waits for a person to confirm {pending_tool}")
        elif state == "running":
            updates.append(_PENDING_TOOL.value_unset())
            workflow.set_current_details("")
        workflow.upsert_search_attributes(updates)


def _is_exhausted(error: ActivityError) -> bool:
    return isinstance(error.cause, ApplicationError) and error.cause.type == stubs.MODELS_EXHAUSTED
