"""What the API answers with: the shapes of its resources, and of its lists."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from fastapi import Path, Query
from pydantic import BaseModel, Field, PlainSerializer

from api.wiring import Services
from holdfast.domain.budgets import dollars
from holdfast.domain.confirmations import Confirmation
from holdfast.domain.ids import workflow_id
from holdfast.domain.messages import Message
from holdfast.domain.model_calls import Usage
from holdfast.domain.runs import OPEN, Run
from holdfast.domain.tools import ToolCall
from holdfast.services.runs import RunDetail
from holdfast.store.steps import Step

#: How many entries a page has, unless the caller says otherwise, and at most.
PAGE_SIZE = 20
MAX_PAGE_SIZE = 100

#: What an id looks like.
ID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"

#: An id in a path. What does not look like one names nothing: 404, as for any that is not known.
PathId = Annotated[str, Path(pattern=ID_PATTERN)]

#: An id in a query.
QueryId = Annotated[str, Field(pattern=ID_PATTERN)]

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list. Ask for the next with `?after={last_id}` while `has_more`."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    last_id: str | None

    @classmethod
    def of(cls, items: list[Item], limit: int, ids: list[str]) -> Self:
        """A page of at most `limit` items, made of up to one more, which tells whether there is a next page."""
        shown = items[:limit]
        return cls(data=shown, has_more=len(items) > limit, last_id=ids[len(shown) - 1] if shown else None)


class Paging(BaseModel):
    """The parameters of every list."""

    model_config = {"extra": "forbid"}

    limit: int = Query(PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE, description="how many entries at most")
    after: QueryId | None = Query(None, description="the last id of the page before")


class MessageShape(BaseModel):
    """A message of a conversation."""

    id: str
    object: Literal["message"] = "message"
    role: str
    text: str
    run_id: str
    created_at: datetime

    @classmethod
    def of(cls, message: Message) -> Self:
        return cls(
            id=message.message_id,
            role=message.role,
            text=message.text,
            run_id=message.run_id,
            created_at=message.created_at,
        )


class ToolCallShape(BaseModel):
    """A tool call of a run, as the effect ledger has it."""

    id: str
    object: Literal["tool_call"] = "tool_call"
    run_id: str
    step: int
    tool: str
    arguments: dict[str, Any] | None
    status: str
    effect: str
    attempts: int
    result: Any
    error: str | None
    confirmation_id: str | None

    @classmethod
    def of(cls, call: ToolCall) -> Self:
        return cls(
            id=call.tool_call_id,
            run_id=call.run_id,
            step=call.step,
            tool=call.tool,
            arguments=call.arguments,
            status=call.status,
            effect=call.terms.effect,
            attempts=call.attempts,
            result=_result(call.result),
            error=call.error,
            confirmation_id=call.confirmation_id,
        )


#: US dollars as a decimal string, without an exponent.
Money = Annotated[Decimal, PlainSerializer(dollars, return_type=str)]


class UsageShape(BaseModel):
    """What model calls took. `cost_usd` null: a price is not known. `is_estimated`: a provider sent no count."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: Money | None
    is_estimated: bool

    @classmethod
    def of(cls, usage: Usage) -> Self:
        return cls(**vars(usage))


class AttemptShape(BaseModel):
    """One call of one deployment. `failure` null: it answered."""

    alias: str
    model: str
    deployment: str
    failure: str | None
    latency_ms: int


class StepShape(BaseModel):
    """One model call of a run: what was asked, what answered, what it took; times in milliseconds."""

    step: int
    alias: str
    model: str
    deployment: str
    usage: UsageShape
    attempts: list[AttemptShape]
    latency_ms: int
    first_token_ms: int | None

    @classmethod
    def of(cls, step: Step) -> Self:
        return cls(
            step=step.step,
            alias=step.alias,
            model=step.model,
            deployment=step.deployment,
            usage=UsageShape.of(step.usage),
            attempts=[AttemptShape(**vars(attempt)) for attempt in step.attempts],
            latency_ms=step.latency_ms,
            first_token_ms=step.first_token_ms,
        )


class LinksShape(BaseModel):
    """Where to look further."""

    temporal: str | None


class RunShape(BaseModel):
    """What becomes of one message."""

    id: str
    object: Literal["run"] = "run"
    status: str
    degraded: bool
    agent: str
    agent_version: int
    conversation_id: str
    message_id: str
    reply: str | None
    error: str | None
    merged_into: str | None
    cancelled_by: str | None
    steps: list[StepShape]
    tool_calls: list[ToolCallShape]
    usage: UsageShape
    created_at: datetime
    completed_at: datetime | None
    links: LinksShape

    @property
    def is_over(self) -> bool:
        return self.status not in OPEN

    @classmethod
    def of(cls, detail: RunDetail, services: Services) -> Self:
        run = detail.run
        return cls(
            id=run.run_id,
            status=run.status,
            degraded=run.degraded,
            agent=run.agent,
            agent_version=run.agent_version,
            conversation_id=run.conversation_id,
            message_id=run.message_id,
            reply=detail.reply,
            error=run.error,
            merged_into=run.merged_into,
            cancelled_by=run.cancelled_by,
            steps=[StepShape.of(step) for step in detail.steps],
            tool_calls=[ToolCallShape.of(call) for call in detail.tool_calls],
            usage=UsageShape.of(detail.usage),
            created_at=run.created_at,
            completed_at=run.completed_at,
            links=LinksShape(temporal=_temporal_link(run, services)),
        )


class ConfirmationShape(BaseModel):
    """What waits, or waited, for a person. Send `arguments_digest` back with the decision.

    `kind` call: may it run? `kind` outcome: it was dispatched, and nobody knows what became of it; that is settled by
    `POST /v1/tool-calls/{tool_call_id}/resolution`. `kind` budget: may the tenant's budget be raised, by as much as the
    arguments say? It is about no tool call, and is approved or rejected as it is. `approvers`: the roles of which one
    is needed; none: anybody's.
    """

    id: str
    object: Literal["confirmation"] = "confirmation"
    kind: str
    status: str
    run_id: str
    conversation_id: str
    tool_call_id: str | None
    agent: str
    tool: str
    arguments: dict[str, Any]
    arguments_digest: str
    arguments_schema: dict[str, Any] | None
    rule: str
    requested_by: str
    approvers: list[str]
    four_eyes: bool
    deadline: datetime
    on_deadline: str
    remind_at: datetime | None
    reminded_at: datetime | None
    escalated_at: datetime | None
    decision: str | None
    edited_arguments: dict[str, Any] | None
    decided_by: str | None
    decided_via: str | None
    decided_at: datetime | None
    reason: str | None
    created_at: datetime

    @classmethod
    def of(cls, confirmation: Confirmation) -> Self:
        shown = {name: value for name, value in vars(confirmation).items() if name in cls.model_fields}
        return cls(id=confirmation.confirmation_id, **shown)


def _result(stored: str | None) -> Any:
    if stored is None:
        return None
    try:
        return json.loads(stored)
    except ValueError:
        return stored


def _temporal_link(run: Run, services: Services) -> str | None:
    if services.temporal_ui_url is None:
        return None
    workflow = workflow_id(run.tenant_id, run.agent, run.message_id)
    return f"{services.temporal_ui_url}/namespaces/{services.temporal_namespace}/workflows/{workflow}"
