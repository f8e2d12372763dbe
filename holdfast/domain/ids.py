"""Identifiers: prefixed ULIDs, so that an id says what it names and sorts by the time it was made."""

import hashlib
import json
import re
from datetime import datetime

from ulid import ULID

_CONVERSATION = re.compile(r"conv_[0-9A-HJKMNP-TV-Z]{26}")


def new_message_id() -> str:
    return f"msg_{ULID()}"


def new_run_id() -> str:
    return f"run_{ULID()}"


def earliest_run_id(moment: datetime) -> str:
    """What sorts before the id of every run that was accepted after a moment."""
    return f"run_{str(ULID.from_datetime(moment))[:10]}"


def new_conversation_id() -> str:
    return f"conv_{ULID()}"


def is_conversation_id(text: str) -> bool:
    """Whether a text is of the form of a conversation's id."""
    return _CONVERSATION.fullmatch(text) is not None


def conversation_of_thread(tenant_id: str, person: str, thread: str) -> str:
    """The conversation that a person's client calls `thread`: always the same one, and another one for anybody else.

    It sorts by no time, since it is made of the names alone; two clients that begin a thread at once mean the same.
    """
    named = json.dumps(["thread", tenant_id, person, thread]).encode()
    return f"conv_{ULID.from_bytes(hashlib.sha256(named).digest()[:16])}"


def new_tool_call_id() -> str:
    return f"call_{ULID()}"


def new_confirmation_id() -> str:
    return f"conf_{ULID()}"


def new_reservation_id() -> str:
    return f"res_{ULID()}"


def new_key_id() -> str:
    return f"key_{ULID()}"


def new_erasure_id() -> str:
    return f"ers_{ULID()}"


def new_webhook_id() -> str:
    return f"whk_{ULID()}"


def workflow_id(tenant_id: str, agent: str, message_id: str) -> str:
    """The id of the workflow that handles a message: readable in the Temporal UI, and the same for a repeat.

    It holds no text of a user: workflow ids stay plain even where payloads are encrypted.
    """
    return f"{tenant_id}:{agent}:{message_id}"


def tenant_of_workflow(workflow: str) -> str | None:
    """Whose workflow it is, as its id says; None: the id is none of ours."""
    parts = workflow.split(":")
    return parts[0] if len(parts) == 3 else None
