"""From what a client of OpenAI's APIs sends to a run: which conversation it goes on with, what of it is new, and
whether it has been here before.

Such a client often knows no id of ours and sends no idempotency key. What follows a known answer is a repeat if it is
the same again, since a conversation is one line: the key is made of both. What begins a conversation, or names it only,
may well be said twice; it counts as a repeat only where the client says that it tries again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.client_tools import ClientOutput, ClientTool, as_stored, from_stored
from holdfast.domain.confirmations import Confirmation, Decision, canonical_digest
from holdfast.domain.errors import Conflict, InvalidInput, NotFound, PermissionMissing
from holdfast.domain.exchanges import Approval, Exchange, Kind, Place, call_of_item, confirmation_of_item, run_of_item
from holdfast.domain.messages import NewMessage
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.progress import shown_by_answer
from holdfast.domain.runs import Run
from holdfast.services.arrivals import decision_in
from holdfast.services.confirmations import MAX_AT_ONCE, Confirmations, Decided
from holdfast.services.messages import Accepted, Messages
from holdfast.services.refusals import Asked, recording_refusals
from holdfast.store import event_log, histories, messages, runs
from holdfast.store.engine import Database
from holdfast.store.histories import Candidate, Known

#: How many of the agent's last items are looked up; each costs a query or two.
_MOST_NAMED = 32

_SEVERAL = (
    "Several conversations have this history, and may differ in what was said since, or in what tools said. Send the "
    "conversation's id, or `user`, to tell them apart."
)


@dataclass(frozen=True)
class Begun:
    """Where the answer to a request is to be found."""

    place: Place
    conversation_id: str


@dataclass(frozen=True)
class Request:
    """What an answer is given to."""

    place: Place
    run: Run
    metadata: Mapping[str, Any]
    client_tools: tuple[ClientTool, ...]


class Exchanges:
    """Takes requests in."""

    def __init__(self, database: Database, accepting: Messages, confirmations: Confirmations) -> None:
        self._database = database
        self._messages = accepting
        self._confirmations = confirmations

    async def begin(self, caller: Caller, exchange: Exchange) -> Begun:
        """Take a request in: decide what it decides, or accept the message that it has.

        Raises:
            InvalidInput: it has nothing new, or too much, or names a call that is none; or as `Messages.accept`.
            NotFound: there is no such agent, response or conversation.
            Conflict: the conversation has gone on since, or can't be told from another; or as `Messages.accept` and
                `Confirmations.decide`.
            HoldfastError: as those.
        """
        if max(len(exchange.approvals), len(exchange.outputs)) > MAX_AT_ONCE:
            raise InvalidInput("input", f"At most {MAX_AT_ONCE} decisions or outputs are taken at a time.")
        if exchange.approvals:
            return await self._decide(caller, exchange)
        if not exchange.text.strip() and not exchange.outputs:
            raise InvalidInput("input", "There is nothing new in it: neither a text of the user's nor an output.")
        message = await self._as_message(caller, exchange)
        first = await self._messages.find_repeat(caller, message) if exchange.is_retry else None
        accepted = first or await self._accept(caller, message)
        return Begun(Place(accepted.run_id), accepted.conversation_id)

    async def _accept(self, caller: Caller, message: NewMessage) -> Accepted:
        try:
            return await self._messages.accept(caller, message)
        except InvalidInput as error:
            if error.field == "agent":
                raise NotFound("model", message.agent) from error
            raise

    async def find(self, caller: Caller, place: Place) -> Request:
        """The request that an answer is given to.

        Raises:
            NotFound: the caller sees no such run, or nothing was decided there.
        """
        async with self._database.tenant(caller.tenant_id) as connection:
            tenant_id, run_id = caller.tenant_id, place.run_id
            run = await runs.find(connection, tenant_id, run_id, caller.view(Permission.RUNS_READ))
            if run is None or (
                place.after and not await event_log.is_decision(connection, tenant_id, run_id, place.after)
            ):
                raise NotFound("response", place.response_id)
            metadata, tools = await histories.request_of(connection, tenant_id, run_id)
        return Request(place, run, metadata, from_stored(tools))

    async def _as_message(self, caller: Caller, exchange: Exchange) -> NewMessage:
        known = await self._known(caller, exchange)
        key = exchange.key
        if key is None and known is not None and (known.run_id is not None or exchange.outputs):
            key = _key(caller, exchange, known.run_id)
        return NewMessage(
            agent=exchange.agent,
            text=exchange.text,
            conversation_id=None if known is None else known.conversation_id,
            metadata=exchange.metadata,
            key=key,
            client_tools=exchange.client_tools,
            outputs=exchange.outputs,
            follows=None if known is None else known.run_id,
            history=exchange.history,
            shown=await self._shown(caller, exchange, known),
        )

    async def _shown(self, caller: Caller, exchange: Exchange, known: Known | None) -> frozenset[str] | None:
        """What a "yes" can be about: the confirmations of the answer that a request follows; None: it follows none."""
        place = exchange.place
        if place is None or known is None or decision_in(exchange.text) is None:
            return exchange.asked
        tenant_id, after = caller.tenant_id, place.after
        async with self._database.tenant(tenant_id) as connection:
            run_id = await messages.answering(connection, tenant_id, place.run_id)
            if run_id != place.run_id:
                after = await event_log.merged_at(connection, tenant_id, place.run_id, run_id)
            return shown_by_answer(await event_log.without_pieces(connection, tenant_id, run_id), after)

    async def _known(self, caller: Caller, exchange: Exchange) -> Known | None:
        """The conversation that a request goes on with, and the run that it follows; None: it begins one."""
        async with self._database.tenant(caller.tenant_id) as connection:
            if exchange.place is not None:
                return await _following(connection, caller, exchange, exchange.place)
            if exchange.conversation_id is not None:
                return Known(exchange.conversation_id, None)
            if exchange.outputs:
                return await _of_call(connection, caller, exchange.outputs[-1])
            if not exchange.last_words:
                return None
            return await _named(connection, caller, exchange) or await self._recognised(connection, caller, exchange)

    async def _recognised(self, connection: AsyncConnection, caller: Caller, exchange: Exchange) -> Known:
        """The conversation that a history is of."""
        fitting = _fitting(exchange, await histories.find(connection, caller, exchange.earlier))
        for one in fitting if exchange.is_retry or exchange.key is not None else ():
            key = exchange.key or _key(caller, exchange, one.run_id)
            first = await self._messages.first_under(connection, caller.tenant_id, key)
            if first is not None and first.conversation_id == one.conversation_id:
                return Known(one.conversation_id, one.run_id)
        return _chosen(fitting)

    async def _decide(self, caller: Caller, exchange: Exchange) -> Begun:
        if exchange.text.strip() or exchange.outputs:
            raise InvalidInput("input", "Send decisions by themselves, without a message.")
        asked = Asked("decide", exchange.approvals[0].confirmation_id)
        if not caller.may(Permission.CONFIRMATIONS_DECIDE):
            async with recording_refusals(self._database, caller, asked):
                raise PermissionMissing(f"Your roles don't give the permission {Permission.CONFIRMATIONS_DECIDE}.")
        decisions = [(one.confirmation_id, _decided(one)) for one in exchange.approvals]
        run_id = await self._run_of(caller, exchange)
        settled = await self._confirmations.decide_all(caller, decisions)
        after = await self._decided_at(caller, settled)
        return Begun(Place(run_id, after), settled[0].conversation_id)

    async def _run_of(self, caller: Caller, exchange: Exchange) -> str:
        """The one run that all decisions of a request are about: a response goes on with one."""
        view = caller.view(Permission.CONFIRMATIONS_DECIDE)
        ids = [one.confirmation_id for one in exchange.approvals]
        async with self._database.tenant(caller.tenant_id) as connection:
            found = {one: await histories.run_of_confirmation(connection, caller.tenant_id, one, view) for one in ids}
        for confirmation_id, run_id in found.items():
            if run_id is None:
                raise NotFound("confirmation", confirmation_id)
        run_ids = {run_id for run_id in found.values() if run_id is not None}
        if len(run_ids) > 1:
            raise InvalidInput("input", "The decisions are about several runs; send those of each by themselves.")
        return run_ids.pop()

    async def _decided_at(self, caller: Caller, settled: list[Confirmation]) -> int:
        ids = [one.confirmation_id for one in settled]
        async with self._database.tenant(caller.tenant_id) as connection:
            return await event_log.decided_at(connection, caller.tenant_id, settled[0].run_id, ids)


def _decided(approval: Approval) -> Decided:
    decision = Decision.APPROVE if approval.approve else Decision.REJECT
    return Decided(decision, approval.arguments_digest, approval.reason)


async def _following(connection: AsyncConnection, caller: Caller, exchange: Exchange, place: Place) -> Known:
    """The conversation of an answer."""
    run = await runs.find(connection, caller.tenant_id, place.run_id, caller.view(Permission.MESSAGES_SEND))
    if run is None:
        raise NotFound("response", place.response_id)
    if exchange.conversation_id not in (None, run.conversation_id):
        raise InvalidInput("conversation", "previous_response_id is of another conversation; send one of the two.")
    return Known(run.conversation_id, run.run_id)


async def _of_call(connection: AsyncConnection, caller: Caller, output: ClientOutput) -> Known:
    """The conversation of a call."""
    view = caller.view(Permission.MESSAGES_SEND)
    conversation_id = await histories.of_call(connection, caller.tenant_id, output.tool_call_id, view)
    if conversation_id is None:
        raise InvalidInput("input", f"There is no call {output.tool_call_id!r} of a tool of yours.")
    return Known(conversation_id, None)


def _key(caller: Caller, exchange: Exchange, run_id: str | None) -> str:
    """What makes a request the same as another: the answer that it follows, and all that it says."""
    # A run may give several answers, one after each "yes"; where one is named, it is that one.
    follows = run_id if exchange.place is None else exchange.place.response_id
    beside = [as_stored(exchange.client_tools), exchange.metadata]
    try:
        return f"openai:{canonical_digest([caller.person, follows, exchange.history, beside])}"
    except ValueError as error:
        raise InvalidInput("metadata", f"The metadata can't be stored: {error}") from error


async def _named(connection: AsyncConnection, caller: Caller, exchange: Exchange) -> Known | None:
    """What an item of the agent's last words names, if its id is one of ours."""
    tenant_id, view = caller.tenant_id, caller.view(Permission.MESSAGES_SEND)
    for entry in reversed(exchange.last_words[-_MOST_NAMED:]):
        if entry.id is None:
            continue
        run_id = run_of_item(entry.id)
        if run_id is None and (call_id := entry.id if entry.kind is Kind.CALL else call_of_item(entry.id)) is not None:
            run_id = await histories.run_of_call(connection, tenant_id, call_id, view)
        if run_id is None and (confirmation_id := confirmation_of_item(entry.id)) is not None:
            run_id = await histories.run_of_confirmation(connection, tenant_id, confirmation_id, view)
        run = None if run_id is None else await runs.find(connection, tenant_id, run_id, view)
        if run is not None:
            return Known(run.conversation_id, run.run_id)
    return None


def _fitting(exchange: Exchange, found: list[Candidate]) -> list[Candidate]:
    """The conversations that a history can be of."""
    said = "".join("".join(entry.text for entry in exchange.last_words).split())
    fitting = [one for one in found if one.can_have_said(said)]
    fitting = fitting or _alone([one for one in found if one.can_have_begun(said)])
    if not fitting:
        raise InvalidInput(
            "messages",
            "No conversation with this history was had here. Send the conversation's id "
            "(x-holdfast-conversation, or `conversation`), or the user's new message only, to begin one.",
        )
    return fitting


def _alone(begun: list[Candidate]) -> list[Candidate]:
    """What fits a mere beginning of an answer, since its client left then, if that is one conversation."""
    if len({one.conversation_id for one in begun}) > 1:
        raise Conflict(_SEVERAL)
    return begun


def _chosen(fitting: list[Candidate]) -> Known:
    """The one of them that is meant."""
    if len({one.conversation_id for one in fitting}) > 1 and any(one.has_calls for one in fitting):
        raise Conflict(_SEVERAL)
    best = next((one for one in fitting if one.is_newest), fitting[0])
    return Known(best.conversation_id, best.run_id)
