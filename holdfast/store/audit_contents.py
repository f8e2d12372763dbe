"""Content as its own tables hold it now, in the form in which the audit log committed to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import canonical, outcome_content

#: Of one subject, by the name of what holds it; None: nothing is there.
Contents = Mapping[str, str | None]

_MESSAGES = text("""
SELECT message_id AS id, text FROM messages WHERE tenant_id = :tenant_id AND message_id = ANY(:ids)
""")
_STEPS = text("""
SELECT run_id || ':' || step AS id, text FROM steps
WHERE tenant_id = :tenant_id AND run_id = ANY(:run_ids) AND run_id || ':' || step = ANY(:ids)
""")
_TOOL_CALLS = text("""
SELECT tool_call_id AS id, arguments, result, error FROM tool_calls
WHERE tenant_id = :tenant_id AND tool_call_id = ANY(:ids)
""")
_CONFIRMATIONS = text("""
SELECT confirmation_id AS id, arguments, reason, edited_arguments, decided_roles FROM confirmations
WHERE tenant_id = :tenant_id AND confirmation_id = ANY(:ids)
""")
_AGENTS = text("""
SELECT name || ':' || version AS id, spec FROM agents
WHERE tenant_id = :tenant_id AND name || ':' || version = ANY(:ids)
""")

_QUERIES: dict[str, TextClause] = {
    "message": _MESSAGES,
    "model_call": _STEPS,
    "tool_call": _TOOL_CALLS,
    "confirmation": _CONFIRMATIONS,
    "configuration": _AGENTS,
}


async def read(connection: AsyncConnection, tenant_id: str, kind: str, ids: Sequence[str]) -> dict[str, Contents]:
    """What stands now of some subjects of one kind; what is not there is left out. A step's id is `run:step`."""
    values: dict[str, Any] = {"tenant_id": tenant_id, "ids": list(ids)}
    if kind == "model_call":
        values["run_ids"] = [one.partition(":")[0] for one in ids]
    rows = (await connection.execute(_QUERIES[kind], values)).mappings()
    return {row["id"]: _contents(kind, dict(row)) for row in rows}


def _contents(kind: str, row: Mapping[str, Any]) -> Contents:
    found = {name: _text(value) for name, value in row.items() if name != "id"}
    if kind == "tool_call":
        found["outcome"] = outcome_content(row["result"], row["error"])
    return found


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else canonical(value)
