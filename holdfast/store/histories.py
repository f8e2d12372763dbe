"""Finding a conversation by what its client knows of it: a call, a confirmation, or a history that it sends again."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.permissions import Caller, View
from holdfast.store.tables.runs import confirmations, runs, tool_calls
from holdfast.store.views import of_runs_in, runs_in

#: How many conversations with one history are looked at, the newest.
_MOST = 20

# A client's own only, whatever else it may see.
_FIND = text("""
SELECT r.conversation_id, a.run_id, coalesce(reply.text, '') AS reply,
       ARRAY(SELECT s.text FROM steps s WHERE s.tenant_id = a.tenant_id AND s.run_id = a.run_id ORDER BY s.step)
         || ARRAY(SELECT d.text FROM deltas d WHERE d.tenant_id = a.tenant_id AND d.run_id = a.run_id AND NOT EXISTS
                    (SELECT FROM steps s WHERE s.tenant_id = d.tenant_id AND s.run_id = d.run_id AND s.step = d.step)
                  ORDER BY d.seq)
         AS spoken,
       ARRAY(SELECT confirmation_id FROM confirmations c WHERE c.tenant_id = a.tenant_id AND c.run_id = a.run_id)
         AS confirmation_ids,
       EXISTS (SELECT FROM tool_calls t JOIN runs o ON o.tenant_id = t.tenant_id AND o.run_id = t.run_id
               WHERE o.tenant_id = r.tenant_id AND o.conversation_id = r.conversation_id AND NOT t.by_client)
         AS has_calls,
       a.run_id = (SELECT coalesce(merged_into, run_id) FROM runs n
                   WHERE n.tenant_id = r.tenant_id AND n.conversation_id = r.conversation_id
                   ORDER BY position DESC LIMIT 1) AS is_newest
FROM messages m JOIN runs r ON r.tenant_id = m.tenant_id AND r.run_id = m.run_id
JOIN runs a ON a.tenant_id = r.tenant_id AND a.run_id = coalesce(r.merged_into, r.run_id)
LEFT JOIN messages reply ON reply.tenant_id = a.tenant_id AND reply.run_id = a.run_id AND reply.role = 'assistant'
WHERE m.tenant_id = :tenant_id AND m.history = :history AND r.sent_by = ANY(:names)
ORDER BY m.message_id DESC LIMIT :most
""")

_REQUEST_OF = text("""
SELECT m.metadata, r.client_tools FROM runs r
JOIN messages m ON m.tenant_id = r.tenant_id AND m.run_id = r.run_id AND m.role = 'user'
WHERE r.tenant_id = :tenant_id AND r.run_id = :run_id
""")


@dataclass(frozen=True)
class Known:
    """A conversation, and the run of it that a message follows; None: whichever is the newest."""

    conversation_id: str
    run_id: str | None


@dataclass(frozen=True)
class Candidate:
    """A conversation that had a history. `has_calls`: of tools, so that more than its texts may stand in it.

    `spoken`: what was said in the run that answered, step by step, with the pieces of what is being said now.
    `is_newest`: nothing has come after that run.
    """

    conversation_id: str
    run_id: str
    reply: str
    spoken: tuple[str, ...]
    confirmation_ids: tuple[str, ...]
    has_calls: bool
    is_newest: bool

    def can_have_said(self, said: str) -> bool:
        """Whether words, without their spaces, end as the answer did: with the reply, or naming a confirmation."""
        ends = ["".join(self.reply.split()), *self.confirmation_ids]
        return any(end and said.rstrip(".").endswith(end.rstrip(".")) for end in ends)

    def can_have_begun(self, said: str) -> bool:
        """Whether words, without their spaces, can be what somebody has heard of the answer who left before its end."""
        # A reply is the last that was said, or an apology that no model has said.
        whole = "".join("".join([*self.spoken, self.reply]).split())
        return whole.startswith(said)


async def find(connection: AsyncConnection, caller: Caller, history: str) -> list[Candidate]:
    """The caller's own conversations that had a history at some time, the newest first."""
    values = {"tenant_id": caller.tenant_id, "names": sorted(caller.names | {caller.person}), "most": _MOST}
    rows = await connection.execute(_FIND, {**values, "history": history})
    return [
        Candidate(**{**row._mapping, "confirmation_ids": tuple(row.confirmation_ids), "spoken": tuple(row.spoken)})
        for row in rows
    ]


async def request_of(connection: AsyncConnection, tenant_id: str, run_id: str) -> tuple[dict[str, Any], Any]:
    """What a run's message came with: its metadata, and the client's tools as they are stored."""
    row = (await connection.execute(_REQUEST_OF, {"tenant_id": tenant_id, "run_id": run_id})).one()
    return row.metadata, row.client_tools


async def of_call(connection: AsyncConnection, tenant_id: str, tool_call_id: str, view: View) -> str | None:
    """The conversation of a call of a client's tool; None: there is no such call in this view of the tenant."""
    joined = tool_calls.join(
        runs, (runs.c.tenant_id == tool_calls.c.tenant_id) & (runs.c.run_id == tool_calls.c.run_id)
    )
    query = (
        select(runs.c.conversation_id)
        .select_from(joined)
        .where(tool_calls.c.tenant_id == tenant_id, tool_calls.c.tool_call_id == tool_call_id, tool_calls.c.by_client)
        .where(runs_in(view))
    )
    found: str | None = await connection.scalar(query)
    return found


async def run_of_call(connection: AsyncConnection, tenant_id: str, tool_call_id: str, view: View) -> str | None:
    """The run of a tool call; None: there is no such call in this view of the tenant."""
    query = select(tool_calls.c.run_id).where(
        tool_calls.c.tenant_id == tenant_id, tool_calls.c.tool_call_id == tool_call_id, of_runs_in(view, tool_calls)
    )
    found: str | None = await connection.scalar(query)
    return found


async def run_of_confirmation(
    connection: AsyncConnection, tenant_id: str, confirmation_id: str, view: View
) -> str | None:
    """The run that asked for a confirmation; None: there is none with this id in this view of the tenant."""
    query = select(confirmations.c.run_id).where(
        confirmations.c.tenant_id == tenant_id,
        confirmations.c.confirmation_id == confirmation_id,
        of_runs_in(view, confirmations),
    )
    found: str | None = await connection.scalar(query)
    return found
