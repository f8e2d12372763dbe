"""Where a run stands, as its event log tells it: what is still going on, and what waits for a person.

An answer ends where the run ends, or where it is *quiet*: something waits for a person, and nothing else goes on. Both
can be read off the log alone, so they are the same for whoever reads it, whenever.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.domain.confirmations import Resolution
from holdfast.domain.events import (
    ConfirmationDecided,
    ConfirmationExpired,
    ConfirmationRequested,
    ConfirmationWithdrawn,
    LoggedEvent,
    MessageCompleted,
    ToolCallAmbiguous,
    ToolCallDenied,
    ToolCallExpired,
    ToolCallFailed,
    ToolCallHandedOver,
    ToolCallProposed,
    ToolCallRejected,
    ToolCallStarted,
    ToolCallSucceeded,
    ToolCallWithdrawn,
)

#: Events after which nothing goes on in a call.
UNSUCCESSFUL = frozenset(
    kind.TYPE
    for kind in (
        ToolCallAmbiguous,
        ToolCallDenied,
        ToolCallExpired,
        ToolCallFailed,
        ToolCallRejected,
        ToolCallWithdrawn,
    )
)
_CALL_ENDS = UNSUCCESSFUL | {ToolCallSucceeded.TYPE, ToolCallHandedOver.TYPE}
_DECISION_ENDS = frozenset({ConfirmationDecided.TYPE, ConfirmationExpired.TYPE, ConfirmationWithdrawn.TYPE})


class Progress:
    """Takes one event after the other, from the first on.

    `waiting`: what a person is asked, by confirmation. `arguments` and `asked`: of each call, what it is to run with,
    and the confirmation it has had. `step`: the newest model call that has answered.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, Mapping[str, Any]] = {}
        self.arguments: dict[str, Any] = {}
        self.asked: dict[str, Mapping[str, Any]] = {}
        self.step = 0
        self._going_on: set[str] = set()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing happens until a person decides."""
        return bool(self.waiting) and self._going_on <= {one["tool_call_id"] for one in self.waiting.values()}

    def take(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take note of the next event."""
        if kind in (ToolCallProposed.TYPE, MessageCompleted.TYPE):
            self.step = max(self.step, data["step"] or 0)
        if kind in (ToolCallProposed.TYPE, ToolCallStarted.TYPE):
            self._going_on.add(data["tool_call_id"])
        elif kind in _CALL_ENDS:
            self._going_on.discard(data["tool_call_id"])
        elif kind == ConfirmationRequested.TYPE:
            self._ask(data)
        elif kind in _DECISION_ENDS:
            self._decide(data)
        if kind == ToolCallProposed.TYPE:
            self.arguments[data["tool_call_id"]] = data["arguments"]

    def _ask(self, data: Mapping[str, Any]) -> None:
        self.waiting[data["confirmation_id"]] = data
        if data["kind"] == "call":
            self.asked[data["tool_call_id"]] = data
            # The log shows no more than a part of long arguments, but all of what a person is asked about.
            self.arguments[data["tool_call_id"]] = data["arguments"]

    def _decide(self, data: Mapping[str, Any]) -> None:
        asked = self.waiting.pop(data["confirmation_id"], None)
        if asked is None or asked["tool_call_id"] is None:
            return
        if data.get("decision") == Resolution.RUN_AGAIN:
            self._going_on.add(asked["tool_call_id"])
        if data.get("edited_arguments") is not None:
            self.arguments[asked["tool_call_id"]] = data["edited_arguments"]


def shown_by_answer(log: Iterable[LoggedEvent], after: int) -> frozenset[str]:
    """The confirmations that the answer ends with which begins after an event; none, while it goes on."""
    progress = Progress()
    for event in log:
        progress.take(event.type, json.loads(event.data))
        if event.seq > after and progress.is_quiet:
            return frozenset(progress.waiting)
    return frozenset()
