"""A budget: what the model calls of a tenant may cost, in a day, in a month, or in all."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class Period(StrEnum):
    """The time that a limit is for. Days and months are those of UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"  #: it never begins anew


@dataclass(frozen=True)
class BudgetTerms:
    """What a person sets.

    `raise_by_usd`: by how much a person is asked to raise the limit when it has no room; None: nobody is asked.
    `approvers`: the roles of which one is needed to raise or set it; none means that anybody of the tenant may.
    """

    limit_usd: Decimal
    period: Period
    raise_by_usd: Decimal | None = None
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """A budget as it stands. `reserved_usd` is what the calls that are on their way may cost at most."""

    terms: BudgetTerms
    spent_usd: Decimal
    reserved_usd: Decimal

    def __str__(self) -> str:
        limit, period = self.terms.limit_usd, self.terms.period
        of = f"${dollars(limit)} in all" if period is Period.TOTAL else f"${dollars(limit)} a {period}"
        return f"of {of}, ${dollars(self.spent_usd)} are spent and ${dollars(self.reserved_usd)} reserved"


def dollars(amount: Decimal) -> str:
    """US dollars as a decimal string, without an exponent and without needless zeros."""
    return f"{amount.normalize():f}"
