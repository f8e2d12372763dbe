"""Confirmations: a person's consent to one tool call with exactly these arguments, or to one raise of a budget."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import rfc8785

from holdfast.domain.agents import Escalation


class ConfirmationKind(StrEnum):
    """What a person is asked."""

    CALL = "call"  #: may this call run?
    OUTCOME = "outcome"  #: what became of this call, which was dispatched and never heard of again?
    BUDGET = "budget"  #: may the tenant's budget be raised, for a model call that it has no room for?


#: What a question for more budget has in place of a tool's name.
RAISE_BUDGET = "raise_budget"


class ConfirmationStatus(StrEnum):
    """Where a confirmation stands. It leaves `pending` once, by compare-and-set, and never comes back."""

    PENDING = "pending"  #: waits for a person
    APPROVED = "approved"  #: the call may be dispatched, once
    REJECTED = "rejected"  #: the model is told why, or is given the person's own answer
    RESOLVED = "resolved"  #: a person said what became of a call whose outcome was unknown
    EXPIRED = "expired"  #: nobody decided before the deadline
    WITHDRAWN = "withdrawn"  #: it is not asked any more: its run ended first, or the call's own result came late


FIRST = frozenset({ConfirmationStatus.PENDING})

TRANSITIONS: dict[ConfirmationStatus, frozenset[ConfirmationStatus]] = {
    ConfirmationStatus.PENDING: frozenset(set(ConfirmationStatus) - {ConfirmationStatus.PENDING}),
    **{status: frozenset() for status in ConfirmationStatus if status is not ConfirmationStatus.PENDING},
}


class Decision(StrEnum):
    """What a person can say to a call that waits for confirmation."""

    APPROVE = "approve"  #: run it
    EDIT = "edit"  #: run it with other arguments, which the person gives
    REJECT = "reject"  #: don't run it; the model is told why
    RESPOND = "respond"  #: don't run it; the model is given the person's answer in place of a result

    @property
    def status(self) -> ConfirmationStatus:
        runs = self in (Decision.APPROVE, Decision.EDIT)
        return ConfirmationStatus.APPROVED if runs else ConfirmationStatus.REJECTED


class Resolution(StrEnum):
    """What a person can say of a call whose outcome is unknown."""

    COMMITTED = "committed"  #: it happened
    FAILED = "failed"  #: it did not happen, and is not to
    RUN_AGAIN = "run_again"  #: it did not happen, and is to be run again, once


@dataclass(frozen=True)
class Confirmation:
    """A confirmation as it is stored.

    `rule` says, in the words of the policy, why it was asked. `approvers` are the roles of which one is needed to
    decide; none means that anybody of the tenant may; with `four_eyes`, neither `requested_by`, who wrote the message,
    nor `sent_by`, whose key it came with. `arguments` are those the model wrote, also after an edit.

    One of kind budget is about no tool call (`tool_call_id` is None); its arguments are those of the raise.
    """

    confirmation_id: str
    kind: ConfirmationKind
    tool_call_id: str | None
    run_id: str
    conversation_id: str
    agent: str
    tool: str
    arguments: dict[str, Any]
    arguments_digest: str
    arguments_schema: dict[str, Any] | None
    rule: str
    requested_by: str
    sent_by: str
    approvers: tuple[str, ...]
    four_eyes: bool
    deadline: datetime
    on_deadline: str
    remind_at: datetime | None
    reminded_at: datetime | None
    escalate: Escalation | None
    escalated_at: datetime | None
    status: ConfirmationStatus
    decision: Decision | Resolution | None
    edited_arguments: dict[str, Any] | None
    decided_by: str | None
    decided_via: str | None
    decided_at: datetime | None
    reason: str | None
    created_at: datetime

    @property
    def call(self) -> str:
        """The tool call it is about: there is one, unless its kind is budget."""
        assert self.tool_call_id is not None
        return self.tool_call_id


def arguments_digest(
    *, tenant_id: str, run_id: str, tool_call_id: str, tool: str, schema_digest: str, arguments: dict[str, Any]
) -> str:
    """The SHA-256, in hexadecimal, of what a decision is bound to: this call, with these arguments, of this schema.

    Raises:
        ValueError: the arguments have no canonical JSON (RFC 8785): NaN, or an integer beyond 2**53.
    """
    return canonical_digest(
        {
            "tenant": tenant_id,
            "run": run_id,
            "call": tool_call_id,
            "tool": tool,
            "schema": schema_digest,
            "arguments": arguments,
        }
    )


def raise_digest(*, tenant_id: str, confirmation_id: str, arguments: dict[str, Any]) -> str:
    """Likewise for a raise of a budget: this one question, with these amounts."""
    return canonical_digest({"tenant": tenant_id, "confirmation": confirmation_id, "arguments": arguments})


def canonical_digest(value: Any) -> str:
    """The SHA-256, in hexadecimal, of a value's canonical JSON (RFC 8785).

    Raises:
        ValueError: the value has no canonical JSON.
    """
    try:
        return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
    except rfc8785.CanonicalizationError as error:
        raise ValueError(str(error)) from error
