"""`/v1/budget`: what the tenant's model calls may cost."""

from decimal import Decimal
from typing import Annotated, Literal, Self

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Authenticated
from api.problems import documented
from api.routing import resource
from api.shapes import Money
from api.wiring import services
from holdfast.domain.agents import RoleName
from holdfast.domain.budgets import Budget, BudgetTerms, Period

router = resource("/v1/budget", "budget")

#: US dollars as they are kept: up to a billion, to a billionth.
Amount = Annotated[Decimal, Field(max_digits=18, decimal_places=9)]

#: How many roles may approve a raise.
MAX_APPROVERS = 20


class BudgetBody(BaseModel):
    """A budget. Without `raise_by_usd`, what has no room is refused; with it, a person is asked to raise the limit."""

    model_config = ConfigDict(extra="forbid")

    limit_usd: Annotated[Amount, Field(ge=0)]
    period: Period
    raise_by_usd: Annotated[Amount, Field(gt=0)] | None = None
    approvers: list[RoleName] = Field(
        default_factory=list,
        max_length=MAX_APPROVERS,
        description="roles of which one is needed to raise this budget, and to set it again; none: anybody's",
    )

    def terms(self) -> BudgetTerms:
        """What the services take."""
        return BudgetTerms(self.limit_usd, self.period, self.raise_by_usd, tuple(self.approvers))


class BudgetShape(BaseModel):
    """The budget now. `reserved_usd`: what the model calls that are on their way may cost at most."""

    object: Literal["budget"] = "budget"
    limit_usd: Money
    period: Period
    raise_by_usd: Money | None
    approvers: list[str]
    spent_usd: Money
    reserved_usd: Money

    @classmethod
    def of(cls, budget: Budget) -> Self:
        return cls(**vars(budget.terms), spent_usd=budget.spent_usd, reserved_usd=budget.reserved_usd)


@router.get("", responses=documented(404))
async def get_budget(request: Request, caller: Authenticated) -> BudgetShape:
    """The budget, with what is spent of it in its period. 404: there is none, and nothing holds model calls back."""
    return BudgetShape.of(await services(request).budgets.get(caller.tenant_id))


@router.put("")
async def put_budget(request: Request, caller: Authenticated, body: BudgetBody) -> BudgetShape:
    """Set the budget. What was spent in its period before counts. 403: it has approvers, and you are none of them."""
    return BudgetShape.of(await services(request).budgets.put(caller, body.terms()))
