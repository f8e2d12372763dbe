"""Waiting for a person: until a decision is read, or the deadline passes.

A signal says that there may be something to read, never what was decided: a forged one wakes the wait, finds the
confirmation pending, and the wait goes on.
"""

from datetime import timedelta

from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.steps import CallRef, ConfirmationCheck, ConfirmationRequested
from temporalio import workflow

from workflows import stubs


class Decisions:
    """Which confirmations a signal has named since they were last looked at."""

    def __init__(self) -> None:
        self._woken: set[str] = set()

    def wake(self, confirmation_id: str) -> None:
        """A signal arrived. Only ids that are waited for are ever looked up, so a stranger's costs nothing."""
        self._woken.add(confirmation_id)

    async def wait_for(self, call: CallRef, tool: str, requested: ConfirmationRequested) -> ConfirmationStatus:
        """Wait until the confirmation is approved, rejected or expired. No worker's slot is held meanwhile."""
        while True:
            deadline_passed = not await self._woken_before(requested, tool)
            self._woken.discard(requested.confirmation_id)
            check = ConfirmationCheck(call.tenant_id, call.run_id, requested.confirmation_id, deadline_passed)
            outcome = await stubs.check_confirmation(check, tool)
            if outcome.status is not ConfirmationStatus.PENDING:
                return outcome.status

    async def _woken_before(self, requested: ConfirmationRequested, tool: str) -> bool:
        try:
            await workflow.wait_condition(
                lambda: requested.confirmation_id in self._woken,
                timeout=max(requested.deadline - workflow.now(), timedelta(0)),
                timeout_summary=f"{tool} deadline, then reject",
            )
        except TimeoutError:
            return False
        return True
