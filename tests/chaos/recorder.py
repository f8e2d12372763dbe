"""The effect recorder: a service outside of Holdfast that does what tools ask of it, and counts what really happened.

    python -m tests.chaos.recorder --port 9000 --log effects.jsonl --seed 7

A call with a key is done once for each key, as a payment provider would do it. Every call stands in the log, which is
written before it is answered; and now and then the answer is lost, or comes late, after the work was done. The driver
may have calls held back, to kill the caller in the middle of one.
"""

import argparse
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: Of a hundred calls, how many lose their answer, and how many are slow.
_LOST_PERCENT = 6
_SLOW_PERCENT = 10


class Recorder(ThreadingHTTPServer):
    """Counts effects."""

    daemon_threads = True

    def __init__(self, port: int, log: Path, seed: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._log = log.open("a", buffering=1)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._held: set[str] = set()
        self.lets_go = threading.Event()
        self.calls: list[dict[str, Any]] = []

    def do(self, call: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Do a call's work, once for each key; answers with what the caller is to see, and how it is told."""
        with self._lock:
            key = call.get("key")
            is_repeat = key is not None and key in self._done
            number = self._done.setdefault(key or f"no key {len(self.calls)}", len(self._done) + 1)
            self.calls.append({**call, "applied": not is_repeat, "number": number, "at": time.time()})
            self._log.write(json.dumps(self.calls[-1]) + "\n")
            drawn = self._random.uniform(0, 100)
            if call["marker"] in self._held:
                return {"number": number}, "held"
        if call["tool"] == "look":
            return {"number": number}, "told"
        kind = "lost" if drawn < _LOST_PERCENT else "slow" if drawn < _LOST_PERCENT + _SLOW_PERCENT else "told"
        return {"number": number}, kind

    def has_done(self, marker: str) -> bool:
        """Whether any call with this marker was done."""
        with self._lock:
            return any(call["marker"] == marker for call in self.calls)

    def hold(self, marker: str) -> None:
        """From now on, answer no call with this marker until `lets_go` is set."""
        with self._lock:
            self._held.add(marker)


class _Handler(BaseHTTPRequestHandler):
    server: Recorder
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/hold":
            self.server.hold(body["marker"])
            return self._answer({})
        if self.path == "/let-go":
            self.server.lets_go.set()
            return self._answer({})
        answer, kind = self.server.do(body)
        if kind == "held":
            self.server.lets_go.wait()
        if kind == "slow":
            time.sleep(0.3)
        if kind in ("lost", "held"):
            self.close_connection = True
            return None
        return self._answer(answer)

    def do_GET(self) -> None:
        if self.path.startswith("/done/"):
            return self._answer({"done": self.server.has_done(self.path.removeprefix("/done/"))})
        return self._answer({"calls": self.server.calls})

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the log is the effects."""

    def _answer(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    Recorder(given.port, given.log, given.seed).serve_forever()


if __name__ == "__main__":
    main()
