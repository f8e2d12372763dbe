"""What is wrong is said in one line, with the mend, and a code that is not zero; never by a traceback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.dev.ports import free_port
from tests.harness.stage import PAYLOAD_KEYS

_ROOT = Path(__file__).parents[2]
_HOLDFAST = str(Path(sys.executable).parent / "holdfast")


def holdfast(*arguments: object, cwd: Path = _ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command, with no setting of ours but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "TEMPORAL_"))}
    return subprocess.run(
        [_HOLDFAST, *map(str, arguments)],
        cwd=cwd,
        env={**kept, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_line(ended: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """It ended with a code, and said one line with all the parts."""
    lines = ended.stderr.strip().splitlines()
    assert (ended.returncode, len(lines)) == (code, 1), ended.stderr
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize("option", ["--port", "--temporal-port", "--temporal-ui-port"])
def test_a_taken_port_is_named_with_the_option_that_changes_it(tmp_path: Path, option: str) -> None:
    ports = {name: free_port() for name in ("--port", "--temporal-port", "--temporal-ui-port")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[option] = taken.getsockname()[1]
        chosen = [part for name, port in ports.items() for part in (name, port)]
        assert_one_line(holdfast("dev", "--data", tmp_path, *chosen), 2, str(ports[option]), "is taken", option)


AGENTS = (_ROOT / "examples/shop/agents.yaml").read_text().replace("prompts/support.md", "You help.")


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("persona:", "personna:", ["unknown key 'personna'", "did you mean 'persona'"]),
        ("model: quality", "model: qualty", ["no alias 'qualty'", "did you mean 'quality'"]),
        ("deadline: 15m", "deadline: 15", ["deadline", "no unit"]),
        ("lookup_order: allow", "lookup_order: alow", ["'allow', 'confirm' or 'deny'"]),
        ("version: 1", "version: [1", ["agents.yaml:"]),
    ],
)
def test_a_mistake_in_agents_yaml_is_one_line_with_file_line_and_mend(
    tmp_path: Path, right: str, wrong: str, says: list[str]
) -> None:
    file = _mistaken(tmp_path, right, wrong)

    assert_one_line(holdfast("check", file), 2, f"{file}:", *says)


def test_dev_says_it_too_and_starts_nothing(tmp_path: Path) -> None:
    file = _mistaken(tmp_path, "persona:", "personna:")
    ports = ["--port", free_port(), "--temporal-port", free_port(), "--temporal-ui-port", free_port()]
    state = tmp_path / "state"

    assert_one_line(holdfast("dev", "--agents", file, "--data", state, *ports), 2, f"{file}:", "did you mean 'persona'")
    assert not (state / "postgres").exists()


def _mistaken(tmp_path: Path, right: str, wrong: str) -> Path:
    """An agents.yaml with a mistake in it."""
    assert right in AGENTS
    file = tmp_path / "agents.yaml"
    file.write_text(AGENTS.replace(right, wrong))
    (tmp_path / "models.yaml").write_text((_ROOT / "examples/shop/models.yaml").read_text())
    return file


def test_a_process_finds_its_files_where_one_stands_and_its_code_where_it_is(tmp_path: Path) -> None:
    file = _mistaken(tmp_path, "persona:", "personna:")
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "__main__.py").write_text("raise SystemExit('somebody else')")
    where = {"HOLDFAST_ENVIRONMENT": "dev", "HOLDFAST_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}

    assert_one_line(holdfast("worker", cwd=tmp_path, **where), 2, f"{file.name}:", "did you mean 'persona'")


@pytest.mark.parametrize("process", ["api", "worker"])
def test_settings_that_are_missing_are_named(process: str) -> None:
    ended = holdfast(process)

    assert ended.returncode == 2
    assert "HOLDFAST_DATABASE_URL: is not set" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("process", ["api", "worker"])
def test_a_database_that_does_not_answer_is_one_line(process: str) -> None:
    ended = holdfast(
        process,
        HOLDFAST_DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/none",
        HOLDFAST_KEY_PEPPER="p" * 32,
        HOLDFAST_PAYLOAD_KEYS=PAYLOAD_KEYS,
        HOLDFAST_AGENTS="tests/agents/agents.yaml",
        HOLDFAST_TEST_PROVIDER="http://127.0.0.1:1/v1",
    )

    assert_one_line(ended, 1, "database can't be reached")


def test_the_demo_model_is_refused_outside_of_dev() -> None:
    ended = holdfast(
        "worker",
        HOLDFAST_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        HOLDFAST_AGENTS="examples/shop/agents.yaml",
        HOLDFAST_DEMO_MODEL_URL="http://127.0.0.1:1/v1",
    )

    assert ended.returncode == 2
    assert "demo model" in ended.stderr


def test_without_an_api_the_command_line_says_what_to_do(tmp_path: Path) -> None:
    assert_one_line(holdfast("runs", "list", cwd=tmp_path), 2, "HOLDFAST_URL", "holdfast dev")
    unreachable = {"HOLDFAST_URL": f"http://127.0.0.1:{free_port()}", "HOLDFAST_API_KEY": "hf_none"}
    assert_one_line(holdfast("chat", "support", "hello", cwd=tmp_path, **unreachable), 1, "does not answer")
