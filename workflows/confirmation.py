"""Waiting for a person: until a decision is read, or the deadline passes, or the run has no more time.

A signal says that there may be something to read, never what was decided: a forged one wakes the wait, finds the
confirmation pending, and the wait goes on.
"""

from datetime import datetime, timedelta

from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.steps import ConfirmationCheck, ConfirmationOutcome, ConfirmationRequested, RunRef
from temporalio import workflow

from workflows import stubs


class Decisions:
    """Which confirmations a signal has named since they were last looked at, and until when any of them is waited for.

    `run_ends_at`: when the run has no more time; None: it has no limit.
    """

    def __init__(self) -> None:
        self.run_ends_at: datetime | None = None
        self._woken: set[str] = set()
        self._is_stopped = False

    def wake(self, confirmation_id: str) -> None:
        """A signal arrived. Only ids that are waited for are ever looked up, so a stranger's costs nothing."""
        self._woken.add(confirmation_id)

    def stop(self) -> None:
        """The run is to end: whatever is still pending is withdrawn, and nothing is waited for any more."""
        self._is_stopped = True

    async def wait_for(self, run: RunRef, tool: str, requested: ConfirmationRequested) -> ConfirmationOutcome:
        """Wait until the confirmation is not pending any more. No worker's slot is held meanwhile."""
        while True:
            timer = self._next_timer(requested)
            has_fired = not await self._woken_before(requested, tool, timer)
            self._woken.discard(requested.confirmation_id)
            outcome = await stubs.check_confirmation(self._check(run, requested, timer if has_fired else None), tool)
            if outcome.status is not ConfirmationStatus.PENDING:
                return outcome
            # What is asked may have changed: reminded, or escalated to further people with a later deadline.
            requested = outcome.requested or requested

    def _next_timer(self, requested: ConfirmationRequested) -> datetime:
        timers = (requested.remind_at, requested.deadline, self.run_ends_at)
        return min(timer for timer in timers if timer is not None)

    def _check(self, run: RunRef, requested: ConfirmationRequested, fired: datetime | None) -> ConfirmationCheck:
        run_is_over = self._is_stopped or (fired is not None and fired == self.run_ends_at)
        deadline_passed = fired is not None and fired == requested.deadline
        return ConfirmationCheck(
            run.tenant_id,
            run.run_id,
            requested.confirmation_id,
            deadline_passed=deadline_passed and not run_is_over,
            remind=fired is not None and not deadline_passed and not run_is_over,
            withdraw=run_is_over,
            deadline=fired if deadline_passed else None,
        )

    async def _woken_before(self, requested: ConfirmationRequested, tool: str, timer: datetime) -> bool:
        what = f"then {requested.then}" if timer == requested.deadline else "then remind"
        try:
            await workflow.wait_condition(
                lambda: self._is_stopped or requested.confirmation_id in self._woken,
                timeout=max(timer - workflow.now(), timedelta(0)),
                timeout_summary=f"{tool} deadline, {what}",
            )
        except TimeoutError:
            return False
        return True
