"""Conversations as chat clients know them: under a name of the client's own, with answers in a history that it sends.

What such a client says of the past is a picture, which anybody can paint. Of a history, only a new message and answers
to what is asked are taken, and each answer is a decision like any other, with all its checks.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from holdfast.domain.confirmations import ConfirmationKind, ConfirmationStatus, Decision, canonical_digest
from holdfast.domain.errors import InvalidInput, NotFound
from holdfast.domain.ids import conversation_of_thread, is_conversation_id
from holdfast.domain.messages import NewMessage
from holdfast.domain.permissions import Caller
from holdfast.services.confirmations import MAX_AT_ONCE, Confirmations, Decided, may_decide

_GIVEN_UP = "The person was asked in a chat, and gave no answer."


@dataclass(frozen=True)
class Answer:
    """What a person says to a confirmation they were shown. `decided` None: they don't answer, and read on."""

    confirmation_id: str
    arguments_digest: str
    decided: Decided | None


def conversation_named(caller: Caller, thread: str) -> str:
    """The conversation that a caller's client calls `thread`; the id of a conversation names that one."""
    return thread if is_conversation_id(thread) else conversation_of_thread(caller.tenant_id, caller.person, thread)


def message_in_thread(
    caller: Caller, agent: str, thread: str, text: str, *names: str, shown: Collection[str] | None
) -> NewMessage:
    """A message to a thread.

    Args:
        caller: who sends it.
        agent: to whom.
        thread: the client's name of the conversation.
        text: what it says.
        names: ids of the client's own, under which it is accepted once, as nobody else's is.
        shown: the calls that the client's history shows; None: it has no answers in it.
    """
    key = f"thread-{canonical_digest([caller.person, thread, *names])}"
    seen = None if shown is None else frozenset(shown)
    return NewMessage(agent, text, conversation_named(caller, thread), key=key, shown=seen)


async def answer(
    confirmations: Confirmations, caller: Caller, conversation_id: str, answers: Sequence[Answer], via: str
) -> str:
    """Decide what the answers say, all of it or nothing; answers with the run that waits, or waited, for them.

    Whoever was asked and gives no answer has said no, unless that was settled before.

    Raises:
        NotFound: a confirmation is not one of this conversation, or the caller sees it not.
        InvalidInput: they are of several runs.
        HoldfastError: as `Confirmations.decide` does, for the first that can't be decided.
    """
    if len(answers) > MAX_AT_ONCE:
        raise InvalidInput("resume", f"At most {MAX_AT_ONCE} confirmations can be answered at once.")
    run_ids, decisions = set(), []
    for given in answers:
        asked = await confirmations.get(caller, given.confirmation_id)
        if asked.conversation_id != conversation_id:
            raise NotFound("confirmation", given.confirmation_id)
        run_ids.add(asked.run_id)
        is_open = asked.status is ConfirmationStatus.PENDING and asked.kind is not ConfirmationKind.OUTCOME
        decided = given.decided
        if decided is None and is_open:
            decided = Decided(Decision.REJECT, given.arguments_digest, _GIVEN_UP, via=via)
        if decided is not None:
            decisions.append((given.confirmation_id, decided))
    if len(run_ids) != 1:
        raise InvalidInput("resume", "Answer what one run asks at a time.")
    if decisions:
        await confirmations.decide_all(caller, decisions)
    return run_ids.pop()


async def answerable(confirmations: Confirmations, caller: Caller, confirmation_ids: Sequence[str]) -> frozenset[str]:
    """Those of some confirmations that the caller may decide; others' decisions are waited for."""
    found = set()
    for confirmation_id in confirmation_ids:
        try:
            asked = await confirmations.get(caller, confirmation_id)
        except NotFound:
            continue
        if may_decide(caller, asked):
            found.add(confirmation_id)
    return frozenset(found)
