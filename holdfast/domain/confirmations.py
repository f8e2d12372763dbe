"""Confirmations: a person's consent to one tool call with exactly these arguments."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import rfc8785


class ConfirmationStatus(StrEnum):
    """Where a confirmation stands. It leaves `pending` once, by compare-and-set, and never comes back."""

    PENDING = "pending"  #: waits for a person
    APPROVED = "approved"  #: the call may be dispatched, once
    REJECTED = "rejected"  #: the model is told why
    EXPIRED = "expired"  #: nobody decided before the deadline
    WITHDRAWN = "withdrawn"  #: its run ended first: cancelled, or terminated from outside


class Decision(StrEnum):
    """What a person can say."""

    APPROVE = "approve"
    REJECT = "reject"

    @property
    def status(self) -> ConfirmationStatus:
        return ConfirmationStatus.APPROVED if self is Decision.APPROVE else ConfirmationStatus.REJECTED


@dataclass(frozen=True)
class Confirmation:
    """A confirmation as it is stored. `rule` says, in the words of the policy, why it was asked."""

    confirmation_id: str
    tool_call_id: str
    run_id: str
    conversation_id: str
    agent: str
    tool: str
    arguments: dict[str, Any]
    arguments_digest: str
    rule: str
    requested_by: str
    deadline: datetime
    on_deadline: str
    status: ConfirmationStatus
    decision: Decision | None
    decided_by: str | None
    decided_via: str | None
    decided_at: datetime | None
    reason: str | None
    created_at: datetime


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


def canonical_digest(value: Any) -> str:
    """The SHA-256, in hexadecimal, of a value's canonical JSON (RFC 8785).

    Raises:
        ValueError: the value has no canonical JSON.
    """
    try:
        return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
    except rfc8785.CanonicalizationError as error:
        raise ValueError(str(error)) from error
