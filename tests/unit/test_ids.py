"""Ids say what they name, and sort by the time they were made."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from ulid import ULID

from holdfast.domain import ids

KINDS: list[tuple[str, Callable[[], str]]] = [
    ("msg", ids.new_message_id),
    ("run", ids.new_run_id),
    ("conv", ids.new_conversation_id),
    ("call", ids.new_tool_call_id),
    ("conf", ids.new_confirmation_id),
    ("key", ids.new_key_id),
    ("res", ids.new_reservation_id),
    ("ers", ids.new_erasure_id),
    ("whk", ids.new_webhook_id),
]
EARLIER, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 1_000, tzinfo=UTC)


@pytest.mark.parametrize(("prefix", "new"), KINDS)
def test_an_id_is_its_prefix_and_a_ulid(prefix: str, new: Callable[[], str]) -> None:
    name, _, number = new().partition("_")
    assert name == prefix
    assert str(ULID.from_str(number)) == number


@pytest.mark.parametrize(("prefix", "new"), KINDS)
def test_no_two_are_the_same(prefix: str, new: Callable[[], str]) -> None:
    assert len({new() for _ in range(1_000)}) == 1_000


def test_every_kind_has_a_prefix_of_its_own() -> None:
    made = {name for name in vars(ids) if name.startswith("new_")}
    assert {new.__name__ for _, new in KINDS} == made
    assert len({prefix for prefix, _ in KINDS}) == len(KINDS)


@pytest.mark.parametrize(("prefix", "new"), KINDS)
def test_ids_sort_by_the_time_they_were_made(
    prefix: str, new: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for moment in (EARLIER, LATER):
        monkeypatch.setattr(ids, "ULID", lambda moment=moment: ULID.from_datetime(moment))
        made += [new() for _ in range(10)]
    assert max(made[:10]) < min(made[10:])


def test_a_workflow_is_named_after_tenant_agent_and_message() -> None:
    assert ids.workflow_id("acme", "support", "msg_1") == "acme:support:msg_1"
