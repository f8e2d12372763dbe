"""Identifiers: prefixed ULIDs, so that an id says what it names and sorts by the time it was made."""

from datetime import datetime

from ulid import ULID


def new_message_id() -> str:
    return f"msg_{ULID()}"


def new_run_id() -> str:
    return f"run_{ULID()}"


def earliest_run_id(moment: datetime) -> str:
    """What sorts before the id of every run that was accepted after a moment."""
    return f"run_{str(ULID.from_datetime(moment))[:10]}"


def new_conversation_id() -> str:
    return f"conv_{ULID()}"


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


def workflow_id(tenant_id: str, agent: str, message_id: str) -> str:
    """The id of the workflow that handles a message: readable in the Temporal UI, and the same for a repeat.

    It holds no text of a user: workflow ids stay plain even where payloads are encrypted.
    """
    return f"{tenant_id}:{agent}:{message_id}"


def tenant_of_workflow(workflow: str) -> str | None:
    """Whose workflow it is, as its id says; None: the id is none of ours."""
    parts = workflow.split(":")
    return parts[0] if len(parts) == 3 else None
