"""Whose things a query shows, beyond the tenant: all hangs on the runs, which know who has sent their messages."""

from sqlalchemy import ColumnElement, FromClause, Table, exists, or_, true

from holdfast.domain.permissions import View
from holdfast.store.tables.runs import confirmations, runs


def runs_in(view: View, of: FromClause = runs) -> ColumnElement[bool]:
    """Runs that a view shows."""
    if view.names is None:
        return true()
    is_own = of.c.sent_by.in_(view.names)
    if not view.asked:
        return is_own
    asked = exists().where(confirmations.c.tenant_id == of.c.tenant_id, confirmations.c.run_id == of.c.run_id)
    return or_(is_own, asked.correlate(of))


def of_runs_in(view: View, table: Table) -> ColumnElement[bool]:
    """Rows of a table that belong to runs that a view shows."""
    if view.names is None:
        return true()
    run = runs.alias("run")
    of_run = exists().where(run.c.tenant_id == table.c.tenant_id, run.c.run_id == table.c.run_id, runs_in(view, run))
    return of_run.correlate(table)


def of_conversations_in(view: View, table: Table) -> ColumnElement[bool]:
    """Rows of a table that belong to conversations whose first message a view shows."""
    if view.names is None:
        return true()
    first = runs.alias("first")
    of_first = exists().where(
        first.c.tenant_id == table.c.tenant_id,
        first.c.conversation_id == table.c.conversation_id,
        first.c.position == 1,
        runs_in(view, first),
    )
    return of_first.correlate(table)
