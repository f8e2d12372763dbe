"""What tables have in common."""

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKeyConstraint, MetaData, Text, func

from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.deliveries import DeliveryStatus
from holdfast.domain.runs import RunStatus
from holdfast.domain.tools import ToolCallStatus

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def tenant() -> Column[str]:
    """Whose row it is; first in every primary key."""
    return Column("tenant_id", Text, nullable=False)


def created_at() -> Column[object]:
    """When it was made, by the clock of the database."""
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


def one_of(
    column: str, values: type[RunStatus] | type[ToolCallStatus] | type[ConfirmationStatus] | type[DeliveryStatus]
) -> CheckConstraint:
    """A column holds one of the values of an enum."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def belongs_to(table: str, column: str) -> ForeignKeyConstraint:
    """A row belongs to one of another table, of the same tenant."""
    return ForeignKeyConstraint(["tenant_id", column], [f"{table}.tenant_id", f"{table}.{column}"])
