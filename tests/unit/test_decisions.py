"""Waiting for a person: a signal only wakes, and what was decided is read."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import workflow

from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.steps import ConfirmationCheck, ConfirmationOutcome, ConfirmationRequested, RunRef
from workflows import stubs
from workflows.confirmation import Decisions

RUN = RunRef("acme", "run_1")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
REQUESTED = ConfirmationRequested("conf_1", NOON + timedelta(minutes=10))

PENDING, APPROVED = ConfirmationStatus.PENDING, ConfirmationStatus.APPROVED
REJECTED, EXPIRED = ConfirmationStatus.REJECTED, ConfirmationStatus.EXPIRED


class Stage:
    """What a workflow has around it: a clock, conditions, and the activity that reads what was decided.

    Time stands still until a wait has nothing to wake it; then it jumps to the wait's end.
    """

    def __init__(self, *stored: ConfirmationStatus) -> None:
        self.now = NOON
        self.checks: list[ConfirmationCheck] = []
        self.timers: list[timedelta] = []
        self.summaries: list[str] = []
        self.during_check: Callable[[], None] = lambda: None
        self._stored = list(stored)

    async def wait_condition(
        self,
        condition: Callable[[], bool],
        *,
        timeout: timedelta,  # noqa: ASYNC109  as Temporal's own
        timeout_summary: str,
    ) -> None:
        self.timers.append(timeout)
        self.summaries.append(timeout_summary)
        if not condition():
            self.now += timeout
            raise TimeoutError

    async def check_confirmation(self, check: ConfirmationCheck, tool: str) -> ConfirmationOutcome:
        self.checks.append(check)
        self.during_check()
        return ConfirmationOutcome(self._stored.pop(0))


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    def stage(*stored: ConfirmationStatus) -> Stage:
        made = Stage(*stored)
        monkeypatch.setattr(workflow, "now", lambda: made.now)
        monkeypatch.setattr(workflow, "wait_condition", made.wait_condition)
        monkeypatch.setattr(stubs, "check_confirmation", made.check_confirmation)
        return made

    return stage


async def outcome(decisions: Decisions) -> ConfirmationStatus:
    found = await asyncio.wait_for(decisions.wait_for(RUN, "refund_order", REQUESTED), 30)
    return found.status


def deadlines_passed(stage: Stage) -> list[bool]:
    return [check.deadline_passed for check in stage.checks]


@pytest.mark.parametrize("decided", [APPROVED, REJECTED])
async def test_a_signal_that_came_before_the_wait_is_not_lost(
    staged: Callable[..., Stage], decided: ConfirmationStatus
) -> None:
    stage, decisions = staged(decided), Decisions()
    decisions.wake("conf_1")
    assert await outcome(decisions) is decided
    assert stage.checks == [ConfirmationCheck("acme", "run_1", "conf_1", deadline_passed=False)]
    assert stage.now == NOON


async def test_when_nobody_decides_the_deadline_does(staged: Callable[..., Stage]) -> None:
    stage = staged(EXPIRED)
    assert await outcome(Decisions()) is EXPIRED
    assert (stage.timers, stage.summaries) == ([timedelta(minutes=10)], ["refund_order deadline, then reject"])
    assert deadlines_passed(stage) == [True]


async def test_a_decision_that_was_stored_just_before_the_deadline_stands(staged: Callable[..., Stage]) -> None:
    stage = staged(APPROVED)
    assert await outcome(Decisions()) is APPROVED
    assert deadlines_passed(stage) == [True]


async def test_a_forged_signal_decides_nothing(staged: Callable[..., Stage]) -> None:
    stage, decisions = staged(PENDING, EXPIRED), Decisions()
    decisions.wake("conf_1")
    assert await outcome(decisions) is EXPIRED
    assert deadlines_passed(stage) == [False, True]
    assert stage.now == REQUESTED.deadline


async def test_a_signal_for_another_confirmation_wakes_nobody(staged: Callable[..., Stage]) -> None:
    stage, decisions = staged(EXPIRED), Decisions()
    decisions.wake("conf_2")
    assert await outcome(decisions) is EXPIRED
    assert deadlines_passed(stage) == [True]


async def test_a_signal_that_comes_during_a_look_makes_for_another_look(staged: Callable[..., Stage]) -> None:
    stage, decisions = staged(PENDING, APPROVED), Decisions()
    stage.during_check = lambda: decisions.wake("conf_1")
    decisions.wake("conf_1")
    assert await outcome(decisions) is APPROVED
    assert deadlines_passed(stage) == [False, False]


async def test_a_wait_that_begins_after_the_deadline_ends_at_once(staged: Callable[..., Stage]) -> None:
    stage = staged(EXPIRED)
    stage.now = REQUESTED.deadline + timedelta(hours=1)
    assert await outcome(Decisions()) is EXPIRED
    assert stage.timers == [timedelta(0)]
