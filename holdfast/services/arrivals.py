"""What a message does to the conversation that it comes to, while that is locked and before the message is stored."""

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.agents import OnBusy
from holdfast.domain.confirmations import Decision
from holdfast.domain.errors import Conflict, InvalidInput, NotFound, Stopped
from holdfast.domain.messages import NewMessage
from holdfast.domain.permissions import Caller
from holdfast.services.confirmation_endings import settle_withdrawn
from holdfast.services.confirmations import Decided, decide_in, may_decide
from holdfast.services.runs import ask_to_cancel
from holdfast.services.slack_conversations import has_been_shown
from holdfast.store import agents, confirmations, outbox, runs, switches
from holdfast.store.agents import Reception
from holdfast.store.turns import Conversation

#: What a person says in the chat to decide the one call that waits there. Anything else is a message.
_DECISIONS = {"yes": Decision.APPROVE, "no": Decision.REJECT}

_WROTE_AGAIN = "The user wrote again before this call was confirmed. It was not run."


@dataclass
class Arrival:
    """How a message is taken.

    `answered_by`: the run that takes it in at once; None: it gets a run that answers it. When all is committed, the
    workflows in `woken` are told of what was decided for them, and the one in `cancelled` is stopped.
    """

    agent_version: int
    on_busy: OnBusy
    answered_by: str | None = None
    woken: list[tuple[str, str]] = field(default_factory=list)
    cancelled: str | None = None


async def arrive(
    connection: AsyncConnection,
    caller: Caller,
    message: NewMessage,
    conversation: Conversation | None,
    *,
    begins: bool,
) -> Arrival:
    """Let a message into its conversation, which it may begin, as the agent's `on_busy` and `on_message` say.

    Raises:
        InvalidInput: there is no such agent.
        NotFound: there is no such conversation.
        Conflict: the conversation is busy, and its agent takes no message meanwhile; or the message would decide what
            its writer was not shown.
        Stopped: a kill switch is thrown.
    """
    switch = await switches.standing(connection, caller.tenant_id, message.agent)
    if switch is not None:
        raise Stopped(str(switch))
    reception = await agents.reception(connection, caller.tenant_id, message.agent)
    if reception is None:
        raise InvalidInput("agent", f"There is no agent {message.agent!r}.")
    arrival = Arrival(reception.version, reception.on_busy)
    if conversation is None and not begins:
        raise NotFound("conversation", message.conversation_id or "")
    if conversation is None or not conversation.is_busy:
        return arrival
    if not await _decides(connection, caller, message, arrival):
        await _disturb(connection, caller, reception, conversation, arrival)
    return arrival


async def _disturb(
    connection: AsyncConnection, caller: Caller, reception: Reception, conversation: Conversation, arrival: Arrival
) -> None:
    """Do to a busy conversation what its agent says."""
    if reception.on_busy is OnBusy.REJECT:
        raise Conflict("The conversation is busy with an earlier message; send this one when that is answered.")
    if reception.on_busy is OnBusy.INTERRUPT and conversation.turn_run_id is not None:
        arrival.cancelled = await ask_to_cancel(connection, caller, conversation.turn_run_id)
    elif reception.withdraws:
        if conversation.turn_run_id is not None:
            await runs.lock(connection, caller.tenant_id, conversation.turn_run_id)
        await _withdraw(connection, caller.tenant_id, conversation.conversation_id, arrival)


def decision_in(text: str) -> Decision | None:
    """The decision that a message is, where one call waits; None: it is just a message."""
    return _DECISIONS.get(text.strip().rstrip(".!").casefold())


async def _decides(connection: AsyncConnection, caller: Caller, message: NewMessage, arrival: Arrival) -> bool:
    """Whether the message is a decision, which is then made."""
    decision = decision_in(message.text)
    # Somebody whom the key's holder merely names has not been authenticated, and decides nothing.
    if (
        decision is None
        or message.conversation_id is None
        or (message.sender is not None and not caller.is_one_of(message.sender))
    ):
        return False
    pending = await confirmations.pending_in_conversation(connection, caller.tenant_id, message.conversation_id)
    if len(pending) != 1 or not may_decide(caller, pending[0]):
        return False
    (asked,) = pending
    if message.said_at is not None and not await has_been_shown(
        connection, caller.tenant_id, asked, message.said_at, decision
    ):
        return False
    if message.shown is not None and not message.shown & {asked.confirmation_id, asked.tool_call_id}:
        raise Conflict(
            f"{asked.tool} waits for a person now, which the answer that this follows did not show: see "
            f"GET /v1/confirmations/{asked.confirmation_id}."
        )
    await runs.lock(connection, caller.tenant_id, asked.run_id)
    try:
        # Nothing of a decision that comes too late is to remain but the expiry, which is true in any case.
        _, workflow = await decide_in(
            connection, caller, asked.confirmation_id, Decided(decision, asked.arguments_digest, via="chat")
        )
    except Conflict:
        return False
    arrival.answered_by = asked.run_id
    if workflow is not None:
        arrival.woken.append((workflow, asked.confirmation_id))
    return True


async def _withdraw(connection: AsyncConnection, tenant_id: str, conversation_id: str, arrival: Arrival) -> None:
    for asked in await confirmations.withdraw_in_conversation(connection, tenant_id, conversation_id):
        await settle_withdrawn(connection, tenant_id, asked, _WROTE_AGAIN)
        workflow = await confirmations.workflow_of(connection, tenant_id, asked.confirmation_id)
        await outbox.add_decided(connection, tenant_id, asked.confirmation_id, workflow)
        arrival.woken.append((workflow, asked.confirmation_id))
