"""Confirmations as Slack shows them, in Block Kit. Pure.

A card shows what a decision is bound to. Arguments are written as JSON in the order of the tool's signature; whatever
in them could end the block of code, look like something else or turn text around is written as a JSON escape, so that
what is read is what would run. Where they are longer than a card has room for, nobody can approve from the card: they
are shown whole in a modal, whose button approves.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from holdfast.channels.slack_text import cut, escaped
from holdfast.domain.confirmations import Confirmation, ConfirmationKind, ConfirmationStatus, Decision

Block = dict[str, Any]

#: Slack's own: the longest text of a section, with room for the fence around it.
_SECTION = 2_900

#: How much of the arguments stands in a card, and how much in a modal, in characters of their JSON as it is sent.
_IN_CARD = 2_500
_IN_MODAL = 90_000

_LINE = 300

#: What buttons and modals are called.
APPROVE, REJECT, REVIEW = "holdfast_approve", "holdfast_reject", "holdfast_review"

#: Where the reason stands in the modal.
REASON = "reason"

_MAX_REASON = 2_000

_THEN = {
    "reject": "then it is rejected",
    "cancel_run": "then the run is stopped",
    "escalate": "then further people are asked",
}

_ENDED = {
    ConfirmationStatus.EXPIRED: ":hourglass: Nobody decided in time.",
    ConfirmationStatus.WITHDRAWN: ":leftwards_arrow_with_hook: Not asked any more.",
}


def bound_to(confirmation: Confirmation) -> str:
    """What a button carries: which confirmation, and the digest of the arguments that were shown beside it."""
    return f"{confirmation.confirmation_id} {confirmation.arguments_digest}"


def read_bound(value: str) -> tuple[str, str]:
    """The confirmation's id and the digest that a button carries; empty, if it is none of ours."""
    confirmation_id, _, digest = value.partition(" ")
    return confirmation_id, digest


def as_json(arguments: Mapping[str, Any]) -> str:
    """Arguments as JSON that means what it looks like."""
    return "".join(
        character if character == "\n" or (character.isprintable() and character != "`") else _escape(character)
        for character in json.dumps(arguments, indent=2, ensure_ascii=False)
    )


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) > 127 else f"\\u{ord(character):04x}"


def card(confirmation: Confirmation) -> tuple[str, list[Block]]:
    """The text and the blocks of a card, as the confirmation is now: with buttons as long as it waits for a person."""
    asked = _question(confirmation)
    arguments = _in_card(confirmation)
    if confirmation.status is not ConfirmationStatus.PENDING:
        ending = _ending(confirmation)
        return f"{asked} {ending}", [_section(asked), *arguments, _context(ending)]
    blocks = [_section(asked), *arguments, _context(*_terms(confirmation))]
    return asked, [*blocks, *_buttons(confirmation)]


def reminder(confirmation: Confirmation) -> str:
    """Says that a confirmation still waits, below its card."""
    return f"This still waits for a decision: {_line(confirmation.tool)}, until {_moment(confirmation.deadline)}."


def is_whole(confirmation: Confirmation) -> bool:
    """Whether the card shows all arguments, so that it is enough to approve them."""
    return _length(confirmation) <= _IN_CARD


def digest(text: str, blocks: list[Block]) -> str:
    """Tells one card from another."""
    return hashlib.sha256(json.dumps([text, blocks], sort_keys=True).encode()).hexdigest()


def reason_modal(value: str) -> Block:
    """Asks why a call is rejected."""
    element = {"type": "plain_text_input", "action_id": REASON, "multiline": True, "max_length": _MAX_REASON}
    asked = {
        "type": "input",
        "block_id": REASON,
        "optional": True,
        "label": _plain("Reason"),
        "hint": _plain("The agent is told."),
        "element": element,
    }
    return _modal(REJECT, "Reject", [asked], value, submit="Reject")


def review_modal(confirmation: Confirmation) -> Block:
    """Shows all arguments, and approves."""
    whole = as_json(confirmation.arguments)
    blocks = [
        _section(_question(confirmation)),
        *(_code(part) for part in _parts(whole)),
        _context(*_terms(confirmation)),
    ]
    return _modal(APPROVE, "Review", blocks, bound_to(confirmation), submit="Approve")


def notice_modal(text: str) -> Block:
    """Tells somebody that nothing was decided."""
    return _modal("holdfast_notice", "Not decided", [_section(escaped(text))], "")


def _question(confirmation: Confirmation) -> str:
    tool, agent = _line(confirmation.tool), _line(confirmation.agent)
    match confirmation.kind:
        case ConfirmationKind.OUTCOME:
            return f"{agent} does not know what became of its call of {tool}."
        case ConfirmationKind.BUDGET:
            return f"{agent} needs a larger budget to go on."
    return f"{agent} wants to call {tool}."


def _in_card(confirmation: Confirmation) -> list[Block]:
    edited = confirmation.edited_arguments
    whole = as_json(confirmation.arguments if edited is None else edited)
    if len(escaped(whole)) <= _IN_CARD:
        return [_code(whole)]
    shown = _head(whole, _IN_CARD)
    said = f":warning: These are the first {len(shown)} of {len(whole)} characters."
    return [_code(shown), _context(said)]


def _terms(confirmation: Confirmation) -> list[str]:
    then = _THEN.get(confirmation.on_deadline, confirmation.on_deadline)
    who = f" Decided by: {', '.join(confirmation.approvers)}." if confirmation.approvers else ""
    eyes = " By somebody else than who asked." if confirmation.four_eyes else ""
    return [
        f"*Why:* {_line(confirmation.rule)}",
        f"*Until:* {_moment(confirmation.deadline)}, {escaped(then)}.",
        f"*Asked for by:* {_line(confirmation.requested_by)}.{escaped(who)}{eyes}",
    ]


def _moment(moment: datetime) -> str:
    """A moment, which Slack shows in each reader's own time."""
    shown = f"{{date_short_pretty}} {{time_secs}}|{moment.isoformat(timespec='seconds')}"
    return f"<!date^{int(moment.timestamp())}^{shown}>"


def _buttons(confirmation: Confirmation) -> list[Block]:
    value = bound_to(confirmation)
    if confirmation.kind is ConfirmationKind.OUTCOME:
        return [_context(f"Say what became of it: `holdfast runs resolve {confirmation.tool_call_id} …`")]
    reject = _button(REJECT, "Reject…", value, "danger")
    if _length(confirmation) > _IN_MODAL:
        where = f"`holdfast confirmations show {confirmation.confirmation_id}`"
        return [_context(f"Too long to be approved in Slack: {where}"), _actions(reject)]
    if not is_whole(confirmation):
        return [_actions(_button(REVIEW, "Review all and approve", value, "primary"), reject)]
    return [_actions(_button(APPROVE, "Approve", value, "primary"), reject)]


def _ending(confirmation: Confirmation) -> str:
    if confirmation.status in _ENDED:
        return _ENDED[confirmation.status]
    by = f"by {_line(confirmation.decided_by or 'nobody')} (via {_line(confirmation.decided_via or '?')})"
    said = f": {_line(confirmation.reason)}" if confirmation.reason else "."
    if confirmation.decision is Decision.RESPOND:
        return f":speech_balloon: Answered in the tool's place {by}{said}"
    if confirmation.status is ConfirmationStatus.REJECTED:
        return f":no_entry: Rejected {by}{said}"
    edited = " with other arguments" if confirmation.edited_arguments is not None else ""
    word = "Resolved" if confirmation.status is ConfirmationStatus.RESOLVED else "Approved"
    return f":white_check_mark: {word}{edited} {by}{said}"


def _length(confirmation: Confirmation) -> int:
    return len(escaped(as_json(confirmation.arguments)))


def _head(text: str, limit: int) -> str:
    """The beginning of a text, whole characters that are no longer than the limit when they are escaped."""
    used = 0
    for place, character in enumerate(text):
        used += len(escaped(character))
        if used > limit:
            return text[:place]
    return text


def _parts(text: str) -> list[str]:
    parts = []
    while text:
        parts.append(_head(text, _SECTION))
        text = text[len(parts[-1]) :]
    return parts


def _line(text: str) -> str:
    """A text of somebody's on one line, as code, in which nothing is read as a format."""
    shown = "".join(character if character.isprintable() else " " for character in text).replace("`", "'")
    return f"`{cut(escaped(shown), _LINE, '…')}`"


def _code(text: str) -> Block:
    return _section(f"```{escaped(text)}```")


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text)}


def _context(*lines: str) -> Block:
    return {"type": "context", "elements": [_mrkdwn(line) for line in lines]}


def _mrkdwn(text: str) -> Block:
    # Verbatim: Slack makes no link of a name or an address.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text}


def _actions(*buttons: Block) -> Block:
    return {"type": "actions", "elements": list(buttons)}


def _button(action: str, label: str, value: str, style: str) -> Block:
    return {"type": "button", "action_id": action, "text": _plain(label), "value": value, "style": style}


def _modal(callback: str, title: str, blocks: list[Block], private: str, submit: str | None = None) -> Block:
    view = {
        "type": "modal",
        "callback_id": callback,
        "title": _plain(title),
        "blocks": blocks,
        "private_metadata": private,
    }
    return view if submit is None else {**view, "submit": _plain(submit), "close": _plain("Cancel")}
