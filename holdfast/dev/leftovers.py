"""What a killed `holdfast dev` left running: found by the list it kept, stopped before the next start."""

import json
from pathlib import Path

import psutil

#: How long a left-over process has to end when asked, in seconds.
_GRACE_S = 5


class ProcessList:
    """The processes of one data folder, kept in a file, so that a successor knows them after a kill -9."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, pids: list[int]) -> None:
        """Write down which processes run now. A pid alone may be another's tomorrow: its start time goes with it."""
        started = {pid: psutil.Process(pid).create_time() for pid in pids if psutil.pid_exists(pid)}
        self._path.write_text(json.dumps(started))

    def stop_leftovers(self) -> int:
        """Stop what is on the list and still runs, with its children; answers with how many there were."""
        leftovers = [process for top in self._running() for process in (*top.children(recursive=True), top)]
        for process in leftovers:
            _ask_to_stop(process)
        _, stubborn = psutil.wait_procs(leftovers, timeout=_GRACE_S)
        for process in stubborn:
            process.kill()
        psutil.wait_procs(stubborn, timeout=_GRACE_S)
        self._path.unlink(missing_ok=True)
        return len(leftovers)

    def _running(self) -> list[psutil.Process]:
        try:
            recorded = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return []
        return [process for pid, started in recorded.items() if (process := _same(int(pid), started)) is not None]


def _same(pid: int, started: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started) < 1 else None
    except psutil.NoSuchProcess:
        return None


def _ask_to_stop(process: psutil.Process) -> None:
    try:
        process.terminate()
    except psutil.NoSuchProcess:
        return
