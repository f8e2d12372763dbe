"""What `holdfast chat` shows, and what it takes typed words for."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from holdfast.cli import connection
from holdfast.cli.asking import Answer, Later, Unclear, question, time_left, understood
from holdfast.cli.following import Told
from holdfast.cli.output import harmless, one_line
from holdfast.cli.screen import Plain
from holdfast.domain.errors import ConfigurationError, InvalidInput, Unavailable

CALL: dict[str, Any] = {
    "id": "conf_1",
    "kind": "call",
    "tool": "refund",
    "tool_call_id": "call_1",
    "arguments": {"order": 7, "why": "a\u202eb\x1b[2J"},
    "arguments_digest": "d",
    "rule": "confirm: always",
    "requested_by": "ada",
    "approvers": ["finance"],
    "four_eyes": True,
    "deadline": "2026-11-21T12:00:00Z",
    "on_deadline": "reject",
}


def test_a_question_hides_nothing() -> None:
    asked = question(CALL)

    assert "order = 7" in asked
    assert r'why = "a\u202eb\u001b[2J"' in asked, "what a terminal would obey or turn round is written out"
    for part in ("ada", "confirm: always", "role finance", "except who asked", "2026-11-21T12:00:00 UTC: reject"):
        assert part in asked
    assert one_line({"a\x9b": "\u2066"}) == r'a\u009b="\u2066"'
    assert harmless("a\n\tb\x1b[31m\u202e\r") == "a\n\tb\ufffd[31m\ufffd\ufffd"


@pytest.mark.parametrize(
    ("typed", "body"),
    [
        ("y\n", {"decision": "approve"}),
        (" YES \n", {"decision": "approve"}),
        ("n\n", {"decision": "reject"}),
        ("no, not now\n", None),
        ("n too much\n", {"decision": "reject", "reason": "too much"}),
        ('e {"order": 8}\n', {"decision": "edit", "arguments": {"order": 8}}),
        ("e [8]\n", None),
        ("e\n", None),
        ("\n", None),
        ("yikes\n", None),
    ],
)
def test_a_typed_line_is_that_decision_or_none(typed: str, body: dict[str, Any] | None) -> None:
    answer = understood(typed, CALL)
    if body is None:
        assert isinstance(answer, Unclear)
    else:
        assert answer == Answer("/v1/confirmations/conf_1/decision", {**body, "arguments_digest": "d"})


def test_other_questions_take_other_answers() -> None:
    outcome = {**CALL, "kind": "outcome"}

    assert understood("l\n", CALL) == Later()
    assert understood("committed I looked\n", outcome) == Answer(
        "/v1/tool-calls/call_1/resolution", {"outcome": "committed", "evidence": "I looked"}
    )
    assert isinstance(understood("committed\n", outcome), Unclear)
    assert isinstance(understood("y\n", outcome), Unclear)
    assert isinstance(understood('e {"a": 1}\n', {**CALL, "kind": "budget"}), Unclear)


def test_the_time_that_is_left() -> None:
    now = datetime(2026, 11, 21, 11, 58, 55, tzinfo=UTC)

    assert time_left(CALL["deadline"], now) == "1:05"
    assert time_left(CALL["deadline"], now - timedelta(hours=30)) == "30:01:05"
    assert time_left(CALL["deadline"], now + timedelta(hours=1)) == "0:00"


def test_a_pipe_is_given_the_reply_alone(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    for seq, (kind, data) in enumerate(
        [
            ("message.delta", {"attempt": 1, "text": "Nev"}),
            ("message.reset", {"attempt": 1}),
            ("message.completed", {"text": "Let me see."}),
            ("message.completed", {"text": "**Found.**\x1b"}),
            ("run.completed", {}),
        ]
    ):
        plain.show(Told(seq, kind, json.loads(json.dumps(data))))

    assert capsys.readouterr().out == "**Found.**\x1b\n", "as it is: what a program does with it, it knows"


def test_a_message_whose_answer_is_lost_in_a_restart_is_the_same_message(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    paths: list[str] = []
    fates: list[Exception | httpx.Response] = [
        httpx.ReadError("reset"),
        httpx.ConnectError("refused"),
        httpx.Response(503, json={"title": "Unavailable", "detail": "The database can't be reached."}),
        httpx.Response(202, json={"run_id": "run_1"}),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("idempotency-key", ""))
        paths.append(request.url.raw_path.decode())
        fate = fates.pop(0)
        if isinstance(fate, Exception):
            raise fate
        return fate

    for name, value in (("HOLDFAST_URL", "http://api"), ("HOLDFAST_API_KEY", "hf_key")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(connection, "_AGAIN_S", (0, 0, 0))
    api = connection.Api()
    monkeypatch.setattr(api, "_client", httpx.Client(base_url="http://api", transport=httpx.MockTransport(answer)))

    assert api.post_once("/v1/messages", {}) == {"run_id": "run_1"}
    assert len(keys) == 4
    assert len(set(keys)) == 1

    fates[:] = [httpx.Response(503, json={"title": "Stopped", "detail": "It is stopped."})]
    with pytest.raises(connection.Refused, match="It is stopped"):
        api.post_once("/v1/messages", {})
    fates[:] = [httpx.Response(200, text="ok")]
    with pytest.raises(Unavailable, match="http://api is not the API"):
        api.get("/v1/runs/run?x=1#y")
    assert paths[-1] == "/v1/runs/run%3Fx%3D1%23y"
    with pytest.raises(InvalidInput):
        api.get("/v1/runs/../../livez")


@pytest.mark.parametrize(
    ("url", "key", "complaint"),
    [
        ("http://api", "hf_key\n", "HOLDFAST_API_KEY: is not a key"),
        ("http://api", "hf_кey", "HOLDFAST_API_KEY: is not a key"),
        ("api:8000", "hf_key", "HOLDFAST_URL: 'api:8000' is no address"),
    ],
)
def test_an_address_or_a_key_that_can_not_be_one_is_named_without_the_key(
    monkeypatch: pytest.MonkeyPatch, url: str, key: str, complaint: str
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", url)
    monkeypatch.setenv("HOLDFAST_API_KEY", key)
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        connection.Api()
    assert key.strip() not in str(raised.value)
