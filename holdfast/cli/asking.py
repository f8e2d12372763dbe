"""Asking a person at the terminal: what is asked, how much time there is, and what they answered."""

import json
import os
import select
import sys
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from holdfast.cli.output import as_json, escaped

_KEYS = {
    "call": "y  run it     n [why]  don't     e {arguments}  run it with these     l  leave it to others",
    "budget": "y  raise it     n [why]  don't     l  leave it to others",
    "outcome": "committed EVIDENCE     failed EVIDENCE     run_again EVIDENCE     l  leave it to others",
}

_DECISIONS = {"y": "approve", "yes": "approve", "n": "reject", "no": "reject", "e": "edit", "edit": "edit"}
_OUTCOMES = ("committed", "failed", "run_again")


@dataclass(frozen=True)
class Answer:
    """What to send, and where to."""

    path: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Later:
    """Leave it to others, or to the deadline."""


@dataclass(frozen=True)
class Unclear:
    """It can't be told what was meant; `why`."""

    why: str


def question(confirmation: dict[str, Any]) -> str:
    """All that a person needs to decide, and what they can type."""
    call = f"{escaped(confirmation['tool'])}(…)"
    first = {
        "outcome": f"Nobody knows what became of {call}: it was handed out, and no answer came.",
        "budget": "The budget has no room for the next model call. Raise it?",
    }.get(confirmation["kind"], f"{call} needs your confirmation.")
    arguments = [f"    {escaped(name)} = {as_json(value)}" for name, value in confirmation["arguments"].items()]
    asked = f"Asked for by {escaped(confirmation['requested_by'])}, since: {escaped(confirmation['rule'])}."
    deadline = f"If nobody does by {confirmation['deadline'][:19]} UTC: {confirmation['on_deadline']}."
    return "\n".join([first, *arguments, asked, f"{_who(confirmation)} {deadline}", keys(confirmation)])


def keys(confirmation: dict[str, Any]) -> str:
    """What can be typed."""
    return textwrap.indent(_KEYS[confirmation["kind"]], "  ")


def _who(confirmation: dict[str, Any]) -> str:
    roles = " or ".join(map(escaped, confirmation["approvers"]))
    who = f"Whoever has the role {roles}" if roles else "Whoever may decide"
    return f"{who}{', except who asked,' if confirmation['four_eyes'] else ''} can answer."


def time_left(deadline: str, now: datetime) -> str:
    """The time until a deadline, as a clock counts it down."""
    seconds = max(0, round((datetime.fromisoformat(deadline) - now).total_seconds()))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def understood(line: str, confirmation: dict[str, Any]) -> Answer | Later | Unclear:
    """What a typed line means."""
    word, _, rest = line.strip().partition(" ")
    if word.casefold() in ("l", "later"):
        return Later()
    read = _as_outcome if confirmation["kind"] == "outcome" else _as_decision
    return read(word.casefold(), rest.strip(), confirmation)


def _as_outcome(word: str, evidence: str, confirmation: dict[str, Any]) -> Answer | Unclear:
    if word not in _OUTCOMES:
        return Unclear("Say what became of it.")
    if not evidence:
        return Unclear("Say how you know.")
    path = f"/v1/tool-calls/{confirmation['tool_call_id']}/resolution"
    return Answer(path, {"outcome": word, "evidence": evidence})


def _as_decision(word: str, rest: str, confirmation: dict[str, Any]) -> Answer | Unclear:
    decision = _DECISIONS.get(word)
    if decision is None or (decision == "edit" and confirmation["kind"] != "call"):
        return Unclear("Type one of these:")
    body = {"decision": decision, "arguments_digest": confirmation["arguments_digest"]}
    if decision == "edit":
        arguments = _object(rest)
        if arguments is None:
            return Unclear('Type the arguments behind it, all that are needed, as JSON: e {"amount": 5}')
        body["arguments"] = arguments
    elif rest:
        body["reason"] = rest
    return Answer(f"/v1/confirmations/{confirmation['id']}/decision", body)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Prompt:
    """A line to type an answer into, with a countdown at its beginning that goes on meanwhile.

    The terminal itself edits the line, and hands it over when it is whole: so there is time for other things.
    """

    def __init__(self, confirmation: dict[str, Any]) -> None:
        self._deadline: str = confirmation["deadline"]
        self._ask = f"  {escaped(confirmation['tool'])}? "
        self._shown = ""
        # What was typed before anything was asked is no answer.
        _forget_what_is_typed()

    def show(self) -> None:
        """Begin a line."""
        self._shown = self._clock()
        self._write(self._shown + self._ask)

    def move(self, deadline: str) -> None:
        """Count down to another deadline."""
        self._deadline = deadline

    def line(self, timeout_s: float) -> str | None:
        """The line that was typed; None: none yet.

        Raises:
            EOFError: there will be none.
        """
        clock = self._clock()
        if clock != self._shown:
            # To the beginning of the line and back to where the typing is.
            self._write(f"\x1b7\r{clock}\x1b8")
            self._shown = clock
        if not select.select([sys.stdin], [], [], timeout_s)[0]:
            return None
        typed = os.read(sys.stdin.fileno(), 65536)
        if not typed:
            raise EOFError
        return typed.decode(errors="replace")

    def take_away(self) -> None:
        """Have the line and what was typed of it disappear."""
        _forget_what_is_typed()
        self._write("\r\x1b[K")

    def _clock(self) -> str:
        return f"{time_left(self._deadline, datetime.now(UTC)):>8}"

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _forget_what_is_typed() -> None:
    # Not everywhere: nobody is asked where terminals are of another kind.
    import termios

    termios.tcflush(sys.stdin, termios.TCIFLUSH)
