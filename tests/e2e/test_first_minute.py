"""The README's first minute, on the command line and over HTTP, with a kill -9 of everything in the middle."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from holdfast.dev.ports import free_port

_ROOT = Path(__file__).parents[2]
_HOLDFAST = str(Path(sys.executable).parent / "holdfast")


class Machine:
    """A newcomer's machine: a folder, three ports, and the command line. No key of any provider is set."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "state"
        self.port, self.temporal_port, self.ui_port = free_port(), free_port(), free_port()
        self.output = folder / "output"
        without_keys = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        self.environment = without_keys | {"HOLDFAST_DATA": str(self.data)}
        self.dev: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """`holdfast dev`, until it says what to try."""
        ports = ["--port", self.port, "--temporal-port", self.temporal_port, "--temporal-ui-port", self.ui_port]
        command = [_HOLDFAST, "dev", "--data", self.data, *ports, *options]
        with self.output.open("wb") as output:
            self.dev = subprocess.Popen(
                list(map(str, command)), cwd=_ROOT, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        while "then " not in self.said():
            assert self.dev.poll() is None, self.said()
            psutil.wait_procs([psutil.Process(self.dev.pid)], timeout=0.1)

    def said(self) -> str:
        """What `holdfast dev` has printed."""
        return self.output.read_text()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command, with nobody at the terminal."""
        return subprocess.run(
            [_HOLDFAST, *arguments],
            cwd=_ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def ask(self, *arguments: str) -> str:
        """One command that must succeed; answers with what it printed."""
        ended = self.run(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def interrupt(self) -> int:
        """Ctrl-C; answers with the exit code."""
        assert self.dev is not None
        self.dev.send_signal(signal.SIGINT)
        return self.dev.wait(60)

    def kill_everything(self) -> int:
        """kill -9 of the whole tree at once; answers with how many processes there were."""
        assert self.dev is not None
        tree = [psutil.Process(self.dev.pid), *psutil.Process(self.dev.pid).children(recursive=True)]
        for process in tree:
            process.kill()
        self.dev.wait()
        psutil.wait_procs(tree, timeout=30)
        return len(tree)

    def refunds(self) -> list[tuple[int]]:
        """The orders refunded, as the shop's own table has it."""
        shop = sqlite3.connect(self.data / "shop.sqlite")
        try:
            return shop.execute("SELECT order_id FROM refunds").fetchall()
        finally:
            shop.close()

    def leave(self) -> None:
        """Leave nothing running."""
        if self.dev is not None and self.dev.poll() is None:
            self.kill_everything()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.leave()


def test_the_first_minute_survives_a_kill_of_everything(machine: Machine) -> None:
    machine.start()
    said = machine.said()
    for part in (
        "PostgreSQL started",
        "Temporal started",
        "worker started",
        "API started",
        "key (tenant dev)",
        "/docs",
    ):
        assert part in said
    assert httpx.get(f"http://127.0.0.1:{machine.ui_port}/").status_code == 200

    answer = machine.ask("chat", "support", "where is order 1042?")
    assert "in transit" in answer
    assert "[demo model]" in answer, "nobody takes the demo for a model"

    asked = machine.ask("chat", "support", "refund order 1042")
    assert "refund_order(order_id=1042" in asked
    (pending,) = json.loads(machine.ask("confirmations", "list", "--json"))["data"]
    assert pending["id"] in asked
    assert machine.refunds() == []

    assert machine.kill_everything() >= 5
    machine.start()
    (still,) = json.loads(machine.ask("confirmations", "list", "--json"))["data"]
    assert still == pending, "it waits as before, with the same deadline"

    assert "approved" in machine.ask("confirmations", "approve", pending["id"])
    assert "approved" in machine.ask("confirmations", "approve", pending["id"]), "the same again is no error"
    with api(machine) as http:
        run = http.get(f"/v1/runs/{pending['run_id']}", params={"wait": 50}).json()
    assert run["status"] == "completed"
    assert [call["status"] for call in run["tool_calls"]][-1] == "succeeded"
    assert machine.refunds() == [(1042,)]
    late = machine.run("confirmations", "reject", pending["id"])
    assert (late.returncode, late.stderr.count("\n")) == (1, 1)

    assert "completed" in machine.ask("runs", "list")
    assert "refund_order" in machine.ask("runs", "show", run["id"])
    assert machine.interrupt() == 0
    assert "stopped" in machine.said()
    assert [
        one for one in psutil.process_iter(["cmdline"]) if str(machine.data) in " ".join(one.info["cmdline"] or ())
    ] == []


def test_children_that_are_killed_are_started_again_each_for_itself(machine: Machine) -> None:
    machine.start()
    assert machine.dev is not None
    children = psutil.Process(machine.dev.pid).children()
    (worker,) = [child for child in children if child.cmdline()[-2:] == ["-m", "worker"]]
    (postgres,) = [child for child in children if child.name() == "postgres"]
    # While the worker starts again, what it needs is gone.
    worker.kill()
    while "worker ended" not in machine.said():
        psutil.wait_procs([psutil.Process(machine.dev.pid)], timeout=0.05)
    postgres.kill()

    while machine.said().count("PostgreSQL started") < 2:
        psutil.wait_procs([psutil.Process(machine.dev.pid)], timeout=0.1)
    assert "in transit" in machine.ask("chat", "support", "where is order 1042?")
    for name in ("worker", "PostgreSQL"):
        assert f"{name} ended with code -9; starting it again" in machine.said()
    assert machine.said().count("worker started") == 2


def api(machine: Machine) -> httpx.Client:
    """The HTTP API, with the key of the `dev` tenant."""
    key = json.loads((machine.data / "dev.json").read_text())["key"]
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{machine.port}", headers=headers, timeout=60)
