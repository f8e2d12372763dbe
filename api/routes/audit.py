"""`GET /v1/audit`: what was done, decided and refused, in the order in which it was committed."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from api.auth import needs
from api.routing import resource
from api.shapes import PAGE_SIZE, Money, Page, QueryId
from api.wiring import services
from holdfast.domain.audit import AuditEntry, AuditFilter, Kind
from holdfast.domain.permissions import Caller, Permission

router = resource("/v1/audit", "audit")

#: How many entries a page has at most: an auditor reads many.
MAX_ENTRIES = 1000

#: What is compared with what stands there, and is no pattern.
Text = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before the first year, or after the last") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class AuditQuery(BaseModel):
    """Paging, and which entries."""

    model_config = {"extra": "forbid"}

    limit: int = Query(PAGE_SIZE, ge=1, le=MAX_ENTRIES, description="how many entries at most")
    after: int = Query(0, ge=0, lt=2**63, description="the last id of the page before")
    kind: Kind | None = None
    outcome: Text | None = None
    run_id: QueryId | None = None
    subject_id: Text | None = None
    person: Text | None = None
    since: Moment | None = Query(None, description="entries of this moment and later")
    until: Moment | None = Query(None, description="entries before this moment")

    def wanted(self) -> AuditFilter:
        """Which entries."""
        return AuditFilter(**self.model_dump(exclude={"limit", "after"}))


class AuditEntryShape(BaseModel):
    """An entry; `id` is its number in the tenant's chain. `digests`: commitments to content, which is not kept here."""

    id: str
    object: Literal["audit.entry"] = "audit.entry"
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
    cost_usd: Money | None
    latency_ms: int | None
    purpose: str | None
    detail: str | None
    digests: Mapping[str, str]
    created_at: datetime

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditEntryShape":
        shown = {name: value for name, value in vars(entry).items() if name in cls.model_fields}
        return cls(id=str(entry.seq), **shown)


@router.get("")
async def list_entries(
    request: Request, caller: Annotated[Caller, needs(Permission.AUDIT_READ)], query: Annotated[AuditQuery, Query()]
) -> Page[AuditEntryShape]:
    """Entries of the audit log, oldest first."""
    found = await services(request).audit.page(
        caller.tenant_id, query.wanted(), after=query.after, limit=query.limit + 1
    )
    shapes = [AuditEntryShape.of(entry) for entry in found]
    return Page.of(shapes, query.limit, [shape.id for shape in shapes])
