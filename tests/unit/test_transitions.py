"""Runs and tool calls move as their tables say, and in no other way."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain import confirmations, runs, tools
from holdfast.domain.confirmations import ConfirmationStatus, Decision
from holdfast.domain.runs import RunStatus
from holdfast.domain.tools import ToolCallStatus

Table = Mapping[Any, frozenset[Any]]

#: Each table with the states that something can begin in: a call that the policy allows, forbids, or that doesn't fit,
#: enters the ledger without having been proposed to a person.
RUNS: tuple[type[StrEnum], Table, frozenset[Any]] = (RunStatus, runs.TRANSITIONS, runs.FIRST)
CALLS: tuple[type[StrEnum], Table, frozenset[Any]] = (ToolCallStatus, tools.TRANSITIONS, tools.FIRST)
CONFIRMATIONS: tuple[type[StrEnum], Table, frozenset[Any]] = (
    ConfirmationStatus,
    confirmations.TRANSITIONS,
    confirmations.FIRST,
)
each_table = pytest.mark.parametrize(
    ("states", "table", "beginnings"),
    [RUNS, CALLS, CONFIRMATIONS],
    ids=["runs", "tool calls", "confirmations"],
)


@each_table
def test_every_state_is_in_the_table_and_leads_to_states(
    states: type[StrEnum], table: Table, beginnings: frozenset[Any]
) -> None:
    assert set(table) == set(states)
    assert frozenset().union(*table.values()) <= set(states)


@each_table
def test_every_state_can_be_reached(states: type[StrEnum], table: Table, beginnings: frozenset[Any]) -> None:
    reached: set[Any] = set()
    ahead = set(beginnings)
    while ahead:
        reached |= ahead
        ahead = {following for state in ahead for following in table[state]} - reached
    assert reached == set(states)


@each_table
def test_from_every_state_an_end_can_be_reached(
    states: type[StrEnum], table: Table, beginnings: frozenset[Any]
) -> None:
    ends = {state for state in states if not table[state]}
    while grown := {state for state in states if table[state] & ends} - ends:
        ends |= grown
    assert ends == set(states)


@given(st.data())
def test_a_tool_call_walks_through_each_state_once_unless_a_person_has_it_run_again(data: st.DataObject) -> None:
    state = data.draw(st.sampled_from(sorted(CALLS[2])))
    walked = [state]
    while following := sorted(tools.TRANSITIONS[state]):
        state = data.draw(st.sampled_from(following))
        if state is ToolCallStatus.APPROVED and walked[-1] is ToolCallStatus.AMBIGUOUS:
            return
        assert state not in walked
        walked.append(state)
    before = walked[: walked.index(ToolCallStatus.DISPATCHED)] if ToolCallStatus.DISPATCHED in walked else []
    if ToolCallStatus.AWAITING_CONFIRMATION in before:
        assert ToolCallStatus.APPROVED in before


@given(st.data())
def test_a_walk_of_a_run_is_open_until_it_ends_and_never_after(data: st.DataObject) -> None:
    state = RunStatus.QUEUED
    for _ in range(data.draw(st.integers(0, 12))):
        following = sorted(runs.TRANSITIONS[state])
        if not following:
            break
        assert state in runs.OPEN
        state = data.draw(st.sampled_from(following))
    assert (state in runs.OPEN) is bool(runs.TRANSITIONS[state])


def test_what_has_ended_has_no_way_out() -> None:
    assert set(RunStatus) - runs.OPEN == {
        RunStatus.COMPLETED,
        RunStatus.FAILED,
        RunStatus.CANCELLED,
        RunStatus.MERGED,
    }
    assert {status for status, following in tools.TRANSITIONS.items() if not following} == {
        ToolCallStatus.SUCCEEDED,
        ToolCallStatus.FAILED,
        ToolCallStatus.REJECTED,
        ToolCallStatus.EXPIRED,
        ToolCallStatus.WITHDRAWN,
        ToolCallStatus.DENIED,
    }


def test_only_a_call_that_was_approved_is_dispatched() -> None:
    leads_to_dispatch = {state for state, following in tools.TRANSITIONS.items() if "dispatched" in following}
    assert leads_to_dispatch == {ToolCallStatus.APPROVED}


def test_only_a_call_that_was_dispatched_can_have_had_an_effect() -> None:
    leading = {
        outcome: {state for state, following in tools.TRANSITIONS.items() if outcome in following}
        for outcome in (ToolCallStatus.SUCCEEDED, ToolCallStatus.AMBIGUOUS)
    }
    assert leading == {
        ToolCallStatus.SUCCEEDED: {ToolCallStatus.DISPATCHED, ToolCallStatus.AMBIGUOUS},
        # An approved call which was dispatched before, and that a person wanted run again.
        ToolCallStatus.AMBIGUOUS: {ToolCallStatus.DISPATCHED, ToolCallStatus.APPROVED},
    }


def test_each_decision_ends_a_confirmation_in_its_own_way() -> None:
    assert {decision: decision.status for decision in Decision} == {
        Decision.APPROVE: ConfirmationStatus.APPROVED,
        Decision.EDIT: ConfirmationStatus.APPROVED,
        Decision.REJECT: ConfirmationStatus.REJECTED,
        Decision.RESPOND: ConfirmationStatus.REJECTED,
    }
