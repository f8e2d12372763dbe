"""Accepting a message: committed first, started next. Once it is committed, nothing loses it."""

import hmac
import json
import logging
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.client_tools import as_stored
from holdfast.domain.confirmations import canonical_digest
from holdfast.domain.errors import Conflict, IdempotencyMismatch, InvalidInput, NotFound, Unavailable
from holdfast.domain.events import Event, RunMerged, RunQueued
from holdfast.domain.ids import earliest_run_id, new_conversation_id, new_message_id, new_run_id, workflow_id
from holdfast.domain.messages import MAX_TEXT_CHARACTERS, Message, NewMessage
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.runs import RunStatus, RunToStart
from holdfast.domain.slack import SlackThread
from holdfast.domain.storable import is_storable
from holdfast.secrecy.erased_keys import ErasedKeys
from holdfast.services.arrivals import Arrival, arrive
from holdfast.services.client_calls import check_tools, take_outputs
from holdfast.services.confirmations import wake
from holdfast.services.runs import cancel
from holdfast.services.slack_conversations import conversation_of
from holdfast.store import audit, messages, turns
from holdfast.store.engine import Database
from holdfast.temporal.client import MessageWorkflows

log = logging.getLogger(__name__)

#: The longest idempotency key, in characters; Stripe's limit, which clients know.
MAX_KEY_CHARACTERS = 255

#: For how long a client that got no answer may be trying again: OpenAI's SDKs wait ten minutes for one.
_SENT_AGAIN_WITHIN = timedelta(minutes=11)


@dataclass(frozen=True)
class Accepted:
    """A message that will be answered once. `is_new` False: this delivery is a repeat, and found the first run.

    `status` is that of a new run: merged, if an earlier run has taken the message in.
    """

    message_id: str
    conversation_id: str
    run_id: str
    is_new: bool
    status: RunStatus = RunStatus.QUEUED


class Messages:
    """Accepts messages and reads transcripts. `erased_keys`: by which a message that was erased is known again."""

    def __init__(self, database: Database, workflows: MessageWorkflows, erased_keys: ErasedKeys) -> None:
        self._database = database
        self._workflows = workflows
        self._erased_keys = erased_keys

    async def accept(
        self, caller: Caller, message: NewMessage, thread: SlackThread | None = None, *, may_begin: bool = False
    ) -> Accepted:
        """Accept a message and start its run; when Temporal does not answer, the relay starts it later.

        `may_begin`: the message begins the conversation that it names, if there is none yet.

        In a busy conversation the agent's `on_busy` says what happens. A plain "yes" or "no" from somebody who may
        decide the one call that waits for a person there is that decision.

        Args:
            caller: who sends it.
            message: what is sent.
            thread: where it was written; whoever may write there may write into the conversation that it is.

        Raises:
            InvalidInput: the text is empty, too long or can't be stored, or there is no such agent.
            IdempotencyMismatch: the key was used before with another message.
            NotFound: there is no such conversation.
            Conflict: the conversation is busy, and its agent takes no message meanwhile; or it has gone on since what
                the message `follows`, or without a call that it has an output for; nothing was accepted.
            Stopped: a kill switch is thrown; nothing was accepted.
            Unavailable: the database does not answer; nothing was accepted.
        """
        _check(message)
        fingerprint = _fingerprint(message)
        try:
            async with self._database.tenant(caller.tenant_id) as connection:
                taken = await self._take(connection, caller, message, fingerprint, thread, may_begin=may_begin)
        except IntegrityError:
            # Another delivery under the same key was committed in the meantime: that one is the first.
            first = await self._find_first(caller, message)
            if first is not None:
                return _repeat(caller, first, fingerprint)
            if may_begin:
                # Or another message began the same conversation: this one goes into it.
                return await self.accept(caller, message)
            raise Unavailable("The message could not be stored; send it again.") from None
        if isinstance(taken, Accepted):
            return taken
        run, arrival = taken
        if arrival.answered_by is None:
            await self._start(run)
        await self._tell(arrival)
        status = RunStatus.QUEUED if arrival.answered_by is None else RunStatus.MERGED
        return Accepted(run.message_id, run.conversation_id, run.run_id, is_new=True, status=status)

    async def _take(
        self,
        connection: AsyncConnection,
        caller: Caller,
        message: NewMessage,
        fingerprint: str,
        thread: SlackThread | None,
        *,
        may_begin: bool,
    ) -> tuple[RunToStart, Arrival] | Accepted:
        """The message's new run; or what came of it before, when it is a repeat."""
        if thread is None:
            conversation = await _conversation(connection, caller, message)
        else:
            conversation = await conversation_of(connection, caller.tenant_id, thread)
            message = replace(message, conversation_id=conversation.conversation_id)
        # After the conversation is locked: a repeat that waited for the first delivery finds it.
        if message.key is not None:
            first = await self.first_under(connection, caller.tenant_id, message.key)
            if first is not None:
                return _repeat(caller, first, fingerprint)
        await _check_place(connection, caller, message, conversation)
        begins = conversation is None and (may_begin or message.conversation_id is None)
        arrival = await arrive(connection, caller, message, conversation, begins=begins)
        if message.client_tools:
            await check_tools(connection, caller.tenant_id, message, arrival.agent_version)
        return await _insert(connection, caller, message, fingerprint, arrival, begins=begins), arrival

    async def find_repeat(self, caller: Caller, message: NewMessage) -> Accepted | None:
        """The first delivery of a message that its client sends again and that has no key; None: none is known.

        It is the newest of the same words that came from the caller lately, and that nothing has followed: whoever has
        gone on has heard the answer, and means to say the same once more.
        """
        if message.key is not None:
            return None
        fingerprint = _fingerprint(message)
        async with self._database.tenant(caller.tenant_id) as connection:
            names = caller.names | {caller.person}
            since = earliest_run_id(datetime.now(UTC) - _SENT_AGAIN_WITHIN)
            first = await messages.lately_accepted(connection, caller.tenant_id, names, fingerprint, since)
        return None if first is None else _repeat(caller, first, fingerprint)

    async def accepted_before(self, caller: Caller, message: NewMessage) -> Accepted | None:
        """What came of a message that was accepted under this key before; None: nothing was.

        Raises:
            IdempotencyMismatch: it was another message, or somebody else's.
        """
        first = await self._find_first(caller, message)
        return None if first is None else _repeat(caller, first, _fingerprint(message))

    async def first_under(self, connection: AsyncConnection, tenant_id: str, key: str) -> Any | None:
        """The message that was accepted under a key, also where it was erased since; None: none was."""
        return await messages.accepted_under_key(
            connection, tenant_id, [key, *self._erased_keys.hashes(tenant_id, key)]
        )

    async def in_conversation(
        self, caller: Caller, conversation_id: str, *, after: str | None, limit: int
    ) -> list[Message]:
        """A page of a conversation's messages, oldest first.

        Raises:
            NotFound: the caller sees no such conversation; each has a message from its beginning.
        """
        tenant_id, view = caller.tenant_id, caller.view(Permission.CONVERSATIONS_READ)
        async with self._database.tenant(tenant_id) as connection:
            found = await messages.in_conversation(
                connection, tenant_id, conversation_id, view, after=after, limit=limit
            )
        if not found and after is None:
            raise NotFound("conversation", conversation_id)
        return found

    async def _find_first(self, caller: Caller, message: NewMessage) -> Any | None:
        async with self._database.tenant(caller.tenant_id) as connection:
            return await self.first_under(connection, caller.tenant_id, message.key or "")

    async def _start(self, run: RunToStart) -> None:
        try:
            await self._workflows.start(run)
        except Unavailable as error:
            log.warning("run %s is accepted and will be started by the relay: %s", run.run_id, error)

    async def _tell(self, arrival: Arrival) -> None:
        for workflow, confirmation_id in arrival.woken:
            await wake(self._workflows, workflow, confirmation_id)
        if arrival.cancelled is not None:
            await cancel(self._workflows, arrival.cancelled)


async def _conversation(connection: AsyncConnection, caller: Caller, message: NewMessage) -> turns.Conversation | None:
    """The conversation that a message goes to, locked; None: it begins one, or the caller sees none with this id."""
    if message.conversation_id is None:
        return None
    view = caller.view(Permission.MESSAGES_SEND)
    if not await messages.is_conversation_in(connection, caller.tenant_id, message.conversation_id, view):
        return None
    return await turns.look(connection, caller.tenant_id, message.conversation_id)


async def _check_place(
    connection: AsyncConnection, caller: Caller, message: NewMessage, conversation: turns.Conversation | None
) -> None:
    """Check that a message still follows what its client has seen, and take in what it brings of the client's calls."""
    if conversation is None or not (message.follows or message.outputs):
        return
    newest = await messages.newest_answering(connection, caller.tenant_id, conversation.conversation_id)
    # The run that it follows may have joined another one since its answer began.
    if message.follows not in (None, newest) and newest != await messages.answering(
        connection, caller.tenant_id, message.follows
    ):
        raise Conflict("The conversation has gone on since; a conversation here is one line, and can't be forked.")
    await take_outputs(connection, caller, message, newest)


async def _insert(
    connection: AsyncConnection,
    caller: Caller,
    message: NewMessage,
    fingerprint: str,
    arrival: Arrival,
    *,
    begins: bool,
) -> RunToStart:
    tenant_id = caller.tenant_id
    run = RunToStart(
        tenant_id=tenant_id,
        run_id=new_run_id(),
        conversation_id=message.conversation_id or new_conversation_id(),
        message_id=new_message_id(),
        agent=message.agent,
    )
    row = {
        **asdict(run),
        "agent_version": arrival.agent_version,
        "requested_by": message.sender or caller.person,
        "sent_by": caller.person,
        "on_busy": arrival.on_busy,
        "merged_into": arrival.answered_by,
        "status": RunStatus.QUEUED if arrival.answered_by is None else RunStatus.MERGED,
        "text": message.text,
        "idempotency_key": message.key,
        "fingerprint": fingerprint,
        "sender": message.sender,
        "metadata": message.metadata,
        "client_tools": json.dumps(as_stored(message.client_tools)) if message.client_tools else None,
        "history": message.history,
        "workflow_id": workflow_id(tenant_id, run.agent, run.message_id),
    }
    event = _first_event(run, arrival)
    if not await messages.accept(connection, row, event, new_conversation=begins):
        raise NotFound("conversation", run.conversation_id)
    await _record(connection, caller, run, message, arrival)
    return run


def _first_event(run: RunToStart, arrival: Arrival) -> Event:
    if arrival.answered_by is None:
        return RunQueued(run.run_id, run.conversation_id, run.message_id, run.agent)
    return RunMerged(run.run_id, run.conversation_id, run.message_id, arrival.answered_by)


async def _record(
    connection: AsyncConnection, caller: Caller, run: RunToStart, message: NewMessage, arrival: Arrival
) -> None:
    accepted = audit.Entry(
        kind="message",
        outcome="accepted",
        run_id=run.run_id,
        subject_id=run.message_id,
        person=caller.person,
        content={"text": message.text},
    )
    merged = audit.Entry(kind="run", outcome=RunStatus.MERGED, run_id=run.run_id)
    await audit.append(connection, caller.tenant_id, accepted, *([merged] if arrival.answered_by else []))


def _repeat(caller: Caller, first: Any, fingerprint: str) -> Accepted:
    # What came of somebody else's message is not told to whoever guesses its key and its words.
    view = caller.view(Permission.MESSAGES_SEND)
    is_in_view = view.names is None or first.sent_by in view.names
    # Of a message that was erased, there is nothing left to compare with.
    is_same = first.fingerprint is None or hmac.compare_digest(first.fingerprint, fingerprint)
    if not is_in_view or not is_same:
        raise IdempotencyMismatch("Idempotency-Key", "This key was used before, with another message.")
    return Accepted(first.message_id, first.conversation_id, first.run_id, is_new=False)


def _fingerprint(message: NewMessage) -> str:
    try:
        return canonical_digest(_as_body(message))
    except ValueError as error:
        raise InvalidInput("metadata", f"The metadata can't be stored: {error}") from error


def _as_body(message: NewMessage) -> dict[str, Any]:
    # Of what most messages don't have, only what is there: a digest that was stored before it could be there stands.
    rare = {
        "client_tools": as_stored(message.client_tools),
        "outputs": [vars(output) for output in message.outputs],
        "follows": message.follows,
        "history": message.history,
    }
    usual = {name: value for name, value in vars(message).items() if name not in ("key", "said_at", "shown", *rare)}
    return usual | {name: value for name, value in rare.items() if value}


def _check(message: NewMessage) -> None:
    if not message.text.strip() and not message.outputs:
        raise InvalidInput("text", "The text is empty.")
    if message.outputs and message.conversation_id is None:
        raise InvalidInput("input", "Outputs of calls need the conversation in which the calls were made.")
    if len(message.text) > MAX_TEXT_CHARACTERS:
        raise InvalidInput("text", f"The text has {len(message.text)} characters; {MAX_TEXT_CHARACTERS} are allowed.")
    if message.key is not None and not 1 <= len(message.key) <= MAX_KEY_CHARACTERS:
        raise InvalidInput("Idempotency-Key", f"The key must have 1 to {MAX_KEY_CHARACTERS} characters.")
    for name, value in {**_as_body(message), "key": message.key}.items():
        if not is_storable(value):
            raise InvalidInput(
                name,
                f"The {name} has a character that can't be stored (NUL or a lone surrogate), or is nested too deeply.",
            )
