"""What the command line prints: tables for people, JSON for programs, and errors on one line."""

import json
import sys
from typing import Any, NoReturn

import pytest
from hypothesis import given

from holdfast.cli import main, output
from holdfast.domain.errors import ConfigurationError, HoldfastError, NotFound
from tests.unit.builders import json_objects


def test_arguments_are_shown_on_one_line() -> None:
    assert output.one_line({"order_id": 1042, "reason": "über\nNacht", "items": ["a"]}) == (
        'order_id=1042, reason="über\\nNacht", items=["a"]'
    )
    assert output.one_line({}) == output.one_line(None) == ""


@given(json_objects)
def test_the_values_of_arguments_break_no_line(arguments: dict[str, Any]) -> None:
    shown = output.one_line({"argument": list(arguments.values())})
    assert "\n" not in shown
    assert "\x1b" not in shown


def test_json_is_whole_and_readable(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"data": [{"text": "größer [bold]"}], "has_more": False}
    output.show_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert "größer [bold]" in printed


def test_a_table_shows_text_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table("runs", ["id", "text"], [["run_1", "[red]two\nlines[/red] :smile:"], ["run_2", None]])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "text"]
    assert first.split() == ["run_1", "[red]two", "lines[/red]", ":smile:"]
    assert second.split() == ["run_2", "None"]


def test_a_pipe_gets_identifiers_whole(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["id", "conversation", "message"]
    cells = ["run_" + "1" * 26, "conv_" + "2" * 26, "msg_" + "3" * 26]
    output.show_table("runs", columns, [cells])
    assert capsys.readouterr().out.splitlines()[1].split() == cells


def test_a_pipe_gets_them_whole_beside_a_long_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table("runs", ["id", "reply"], [["run_" + "1" * 26, "word " * 100], ["run_2", ""]])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["id", "run_" + "1" * 26, "run_2"]


def test_a_terminal_gets_ids_whole_and_the_widest_column_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    output.show_table("runs", ["id", "agent", "reply"], [["run_" + "1" * 26, "support", "\x1b[2J" + "größer " * 20]])
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "agent", "reply"]
    assert row.startswith("run_" + "1" * 26 + "  support  \\u001b[2Jgrö")
    assert len(row) == 60
    assert row.endswith("…")


def test_an_empty_list_is_said_to_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table("runs", ["id"], [])
    assert capsys.readouterr().out == "No runs.\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotFound("run", "run_1"), 1), (HoldfastError("the text"), 1), (ConfigurationError("agents.yaml:3: the text"), 2)],
)
def test_an_error_of_ours_is_its_text_and_an_exit_code(
    error: HoldfastError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> NoReturn:
        raise error

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as raised:
        main.run()
    assert raised.value.code == code
    assert capsys.readouterr() == ("", f"{error}\n")


def test_a_command_that_does_not_exist_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["holdfast", "chta"])
    with pytest.raises(SystemExit) as raised:
        main.run()
    assert raised.value.code == 2
    assert "chta" in capsys.readouterr().err
