"""What a client of OpenAI's APIs sends: a conversation as it knows it, of which only the end is new.

The conversation on our side is the truth. What a client says that the agent said is taken for nothing but a way to find
the conversation again; what the user said, and what calls of the client's tools brought, counts once, when it is new.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from holdfast.domain.client_tools import ClientOutput, ClientTool
from holdfast.domain.confirmations import canonical_digest
from holdfast.domain.errors import InvalidInput

_ULID = "[0-9A-HJKMNP-TV-Z]{26}"
_RESPONSE = re.compile(rf"resp_({_ULID})(?:_([1-9][0-9]{{0,8}}))?")
_ITEM = re.compile(rf"msg_({_ULID})_[0-9A-Z_]+")
_CALL = re.compile(rf"(?:fc|mcp)_({_ULID})(?:_[0-9]+)?")
_APPROVAL = re.compile(rf"mcpr_({_ULID})_([0-9a-f]{{64}})")
_CONFIRMATION = re.compile(rf"conf_{_ULID}")


@dataclass(frozen=True)
class Place:
    """Where an answer begins: in the log of a run, after event number `after`, a person's decision; 0: at its start.

    It ends where the run ends, or waits for a person and does nothing else.
    """

    run_id: str
    after: int = 0

    @property
    def ulid(self) -> str:
        return self.run_id.removeprefix("run_")

    @property
    def response_id(self) -> str:
        """The id of the answer as a response: the same whoever asks, and stored nowhere."""
        return f"resp_{self.ulid}_{self.after}" if self.after else f"resp_{self.ulid}"


def place_of(response_id: str) -> Place | None:
    """The place that a response's id names; None: it is no such id."""
    found = _RESPONSE.fullmatch(response_id)
    return None if found is None else Place(f"run_{found[1]}", int(found[2] or 0))


def approval_id(confirmation_id: str, arguments_digest: str) -> str:
    """The id of a confirmation as an approval request, which names the very arguments that are shown with it."""
    return f"mcpr_{confirmation_id.removeprefix('conf_')}_{arguments_digest}"


@dataclass(frozen=True)
class Approval:
    """A person's decision on an approval request."""

    confirmation_id: str
    arguments_digest: str
    approve: bool
    reason: str | None = None


def read_approval(request_id: str, *, approve: bool, reason: str | None) -> Approval:
    """A decision as a client sends it.

    Raises:
        InvalidInput: that is not the id of an approval request.
    """
    found = _APPROVAL.fullmatch(request_id)
    if found is None:
        raise InvalidInput("input", f"{request_id[:200]!r} is not the id of an approval request.")
    return Approval(f"conf_{found[1]}", found[2], approve, reason)


class Kind(StrEnum):
    """What an entry of a history is."""

    USER = "user"  #: the user's words
    AGENT = "agent"  #: what the agent is said to have said, or done by itself
    CALL = "call"  #: a call of a client's tool, by its id
    OUTPUT = "output"  #: what such a call brought
    APPROVAL = "approval"  #: a decision, by the id of its request


@dataclass(frozen=True)
class Entry:
    """One entry of a history. `id`: of an item, a call, a request; None: it came without. `approve`: of a decision."""

    kind: Kind
    text: str = ""
    id: str | None = None
    approve: bool | None = None

    @property
    def is_the_agents(self) -> bool:
        return self.kind in (Kind.AGENT, Kind.CALL)


@dataclass(frozen=True)
class Exchange:
    """A request: which agent, what its client knows of the conversation, and what is to be done with it.

    `place`: the answer that it follows, if it says so. `user`: whom of its users the client says it speaks for.
    `key`: as in `NewMessage`. `is_retry`: the client says that it has sent the same before.
    """

    agent: str
    entries: tuple[Entry, ...]
    client_tools: tuple[ClientTool, ...] = ()
    conversation_id: str | None = None
    place: Place | None = None
    user: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    is_retry: bool = False

    @property
    def new(self) -> Sequence[Entry]:
        """What follows the agent's last word."""
        return self.entries[self._end :]

    @property
    def text(self) -> str:
        """What the user says now."""
        return "\n\n".join(entry.text for entry in self.new if entry.kind is Kind.USER)

    @property
    def approvals(self) -> tuple[Approval, ...]:
        """What the user decides now.

        Raises:
            InvalidInput: it is about no approval request.
        """
        return tuple(
            read_approval(entry.id or "", approve=entry.approve is True, reason=entry.text or None)
            for entry in self.new
            if entry.kind is Kind.APPROVAL
        )

    @property
    def outputs(self) -> tuple[ClientOutput, ...]:
        """What the client's calls brought since the agent last said something; those that were stored before, too."""
        spoken = [place for place, entry in enumerate(self.entries) if entry.kind is Kind.AGENT]
        since = self.entries[spoken[-1] + 1 if spoken else 0 :]
        return tuple(ClientOutput(entry.id or "", entry.text) for entry in since if entry.kind is Kind.OUTPUT)

    @property
    def last_words(self) -> Sequence[Entry]:
        """The agent's part right before what is new."""
        return self.entries[self._begin : self._end]

    @property
    def asked(self) -> frozenset[str] | None:
        """The confirmations that the agent's last words name; None: there are no such words."""
        if not self.last_words:
            return None
        by_item = [confirmation_of_item(entry.id) for entry in self.last_words if entry.id is not None]
        in_text = [found for entry in self.last_words for found in _CONFIRMATION.findall(entry.text)]
        return frozenset(one for one in (*by_item, *in_text) if one is not None)

    @property
    def history(self) -> str:
        """A digest of all of it.

        Raises:
            InvalidInput: a text of it is none.
        """
        return self._digest(self.entries)

    @property
    def earlier(self) -> str:
        """The digest that the request had before the agent's last words, when all of that was new."""
        return self._digest(self.entries[: self._begin])

    @property
    def _end(self) -> int:
        return max((place for place, entry in enumerate(self.entries, 1) if entry.is_the_agents), default=0)

    @property
    def _begin(self) -> int:
        before = [place for place, entry in enumerate(self.entries[: self._end], 1) if not entry.is_the_agents]
        return max(before, default=0)

    def _digest(self, entries: Sequence[Entry]) -> str:
        told = [[entry.kind.value, entry.text, entry.id if entry.kind is not Kind.AGENT else None] for entry in entries]
        try:
            return canonical_digest({"agent": self.agent, "user": self.user, "entries": told})
        except ValueError as error:
            raise InvalidInput("input", f"A text of it can't be stored: {error}") from error


def run_of_item(item_id: str) -> str | None:
    """The run that an item of ours belongs to, where its id says so."""
    found = _ITEM.fullmatch(item_id)
    return None if found is None else f"run_{found[1]}"


def call_of_item(item_id: str) -> str | None:
    """The tool call that an item of ours is about."""
    found = _CALL.fullmatch(item_id)
    return None if found is None else f"call_{found[1]}"


def confirmation_of_item(item_id: str) -> str | None:
    """The confirmation that an item of ours is about."""
    found = _APPROVAL.fullmatch(item_id)
    return None if found is None else f"conf_{found[1]}"
