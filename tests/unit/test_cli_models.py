"""`holdfast models list` says what can be used here, and what to set for the rest."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.cli.main import app

VARIABLES = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OLLAMA_API_BASE", "HOLDFAST_DEMO_MODEL_URL", "HOLDFAST_AGENTS")


@pytest.fixture(autouse=True)
def _no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def listed() -> list[dict[str, Any]]:
    """The deployments of the example's file."""
    ended = CliRunner().invoke(app, ["models", "list", "--json"])
    assert ended.exit_code == 0, ended.output
    return list(json.loads(ended.stdout)["data"])


def test_deployments_stand_in_the_order_in_which_they_are_tried() -> None:
    quality = [one for one in listed() if one["alias"] == "quality"]

    assert [one["model"] for one in quality] == [
        "anthropic/claude-sonnet-5-5",
        "openai/gpt-5.6",
        "ollama_chat/qwen3:8b",
        "openai/holdfast-demo",
    ]
    assert {tuple(one["falls_back_to"]) for one in quality} in ({()}, {("fast",)})


def test_a_key_makes_its_deployments_usable_and_the_others_name_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    deployments = {(one["alias"], one["model"]): one for one in listed()}

    assert deployments["quality", "openai/gpt-5.6"]["usable"]
    assert deployments["quality", "openai/gpt-5.6"]["falls_back_to"] == ["fast"]
    assert deployments["fast", "anthropic/claude-haiku-5-5"]["unset"] == ["ANTHROPIC_API_KEY"]
    assert "sk-canary" not in str(deployments)


def test_the_table_says_the_same() -> None:
    ended = CliRunner().invoke(app, ["models", "list"])

    assert ended.exit_code == 0
    assert "no: ANTHROPIC_API_KEY not set" in ended.stdout
