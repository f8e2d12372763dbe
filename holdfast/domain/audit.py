"""The audit log's words, and what makes it hold: the hash of a record, and commitments to what may be erased.

A record is the canonical JSON (RFC 8785) of a row's columns as texts, with its number and the hash of the record before
it; empty columns are left out, so that a column which is added later changes no hash. What may have to be erased
(`ERASABLE`, and all content) is not in the record; its `digests` are, each the SHA-256 of a random salt and the value.
Erasing takes value and salt: what is left says nothing, and the chain still holds.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import rfc8785

#: What an entry is about.
Kind = Literal[
    "message",  # accepted, or replied
    "model_call",  # answered, failed, cancelled, or refused for want of budget
    "tool_call",  # dispatched, and what came of it; or refused before
    "confirmation",  # pending, reminded, escalated, and how it ended
    "run",  # cancel requested, and how it ended
    "budget",  # set, or raised
    "key",  # API keys and who holds them
    "configuration",  # agents, applied
    "provider_key",  # a tenant's own keys of providers
    "switch",  # kill switches
    "webhook",  # webhooks, and what is told to them again
    "refusal",  # what somebody asked for and may not, or could not, have
    "erasure",  # content or names, erased
]

#: A dispatch that a later one of the same call took over: nothing was heard of it.
SUPERSEDED = "superseded"

#: The columns of an entry that may hold what must be erasable.
ERASABLE = ("person", "detail", "purpose")

#: The columns that are no part of the record: those, the salts, and which erasure took what.
UNHASHED = (*ERASABLE, "salts", "erased")

#: What the first record of a tenant has before it.
NO_HASH = "0" * 64

#: What begins a name that stands in place of an erased one.
PSEUDONYM = "erased:"


@dataclass(frozen=True)
class AuditEntry:
    """One line of the log as it is read: `seq` counts the tenant's entries from 1, without a gap."""

    seq: int
    hash: str
    kind: str
    outcome: str
    run_id: str | None
    step: int | None
    attempt: int | None
    subject_id: str | None
    tool: str | None
    person: str | None
    via: str | None
    alias: str | None
    model: str | None
    deployment: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: Decimal | None
    latency_ms: int | None
    purpose: str | None
    detail: str | None
    digests: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True)
class AuditFilter:
    """Which entries are wanted; None: whichever."""

    kind: str | None = None
    outcome: str | None = None
    run_id: str | None = None
    subject_id: str | None = None
    person: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Link:
    """An entry's place in the chain, with what its hash is made of.

    `record` is None where the row is gone. `values` are those that may be erased, with the `salts` of those that were
    not; `erased` names the erasure that took each of the others.
    """

    seq: int
    audit_id: int
    previous_hash: str
    hash: str
    record: Mapping[str, str] | None
    values: Mapping[str, str | None]
    digests: Mapping[str, str]
    salts: Mapping[str, str]
    erased: Mapping[str, str]


def new_salt() -> str:
    return secrets.token_hex(16)


def commitment(salt: str, slot: str, value: str) -> str:
    """What an entry keeps of a value that may be erased: with the salt gone, nobody can try values."""
    return hashlib.sha256(f"{salt}:{slot}:{value}".encode()).hexdigest()


def canonical(value: Any) -> str:
    """Content as it is committed to, where it is no text: canonical JSON, for what has such a form."""
    try:
        return rfc8785.dumps(value).decode()
    except rfc8785.CanonicalizationError:
        # An integer beyond 2**53, which nobody has to be refused for here.
        return json.dumps(value, sort_keys=True, ensure_ascii=False)


def outcome_content(result: str | None, error: str | None) -> str:
    """What came of a tool call, as it is committed to."""
    return canonical([result, error])


def record_hash(record: Mapping[str, str]) -> str:
    """The hash of a record. PostgreSQL makes the same: see `holdfast_audit_record`."""
    return hashlib.sha256(rfc8785.dumps(dict(record))).hexdigest()


@dataclass(frozen=True)
class Head:
    """The newest entry of a tenant's chain; every entry before it is bound by its hash."""

    tenant_id: str
    seq: int
    hash: str


def erased_line(seq: int, slot: str) -> bytes:
    """What an erasure's digest is made of, a line for each thing that it took, in the order of the log."""
    return f"{seq} {slot}\n".encode()
