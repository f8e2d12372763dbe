"""What `holdfast doctor` says of Slack."""

import asyncio
from collections.abc import Iterator

import pytest

from holdfast.cli import doctor
from holdfast.domain.errors import HoldfastError
from holdfast.testing.slack import APP_USER, TEAM, FakeSlack, Refused


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlack]:
    with FakeSlack() as slack:
        for name, value in {
            "DATABASE_URL": "postgresql://u:p@localhost/d",
            "SLACK_BOT_TOKEN": "xoxb-1",
            "SLACK_TEAM": TEAM,
            "SLACK_TENANT": "acme",
            "SLACK_API_URL": slack.url,
        }.items():
            monkeypatch.setenv(f"HOLDFAST_{name}", value)
        yield slack


def complaint() -> str:
    with pytest.raises(HoldfastError) as raised:
        asyncio.run(doctor.slack())
    return str(raised.value)


def test_slack_is_asked_whether_the_token_will_do(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(doctor.slack()) == f"the token is of the workspace {TEAM}, for the tenant 'acme'"
    slack.scopes = slack.scopes.replace("chat:write,", "")
    assert "lacks the scopes chat:write; add them" in complaint()
    slack.bot = ""
    assert f"is that of the user {APP_USER}, who would seem to write" in complaint()
    slack.script("auth.test", Refused("invalid_auth"))
    assert "Slack refuses auth.test: invalid_auth" in complaint()
    monkeypatch.setenv("HOLDFAST_SLACK_TEAM", "T9")
    assert f"is of the workspace {TEAM}, and was set for T9" in complaint()


def test_slack_without_a_token_is_off(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_SLACK_BOT_TOKEN", "")
    assert "HOLDFAST_SLACK_BOT_TOKEN is not set: nothing is taken from Slack" in complaint()
    for name in ("TEAM", "TENANT"):
        monkeypatch.setenv(f"HOLDFAST_SLACK_{name}", "")
    assert asyncio.run(doctor.slack()) == "off, since HOLDFAST_SLACK_BOT_TOKEN is not set"
