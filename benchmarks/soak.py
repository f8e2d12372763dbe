"""`python -m benchmarks.soak`: does the model pool leak, and what does a call through it cost?

One pool, as a worker has one, against the scripted provider in a process of its own; half of the calls stream an answer
of twelve words. It prints the import's time and memory, then the memory and what a call takes as the calls go by. It
fails when the memory of the second half grows by more than `MOST_GROWTH_MB`, or when a call goes wrong.
"""

import argparse
import asyncio
import gc
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from holdfast.dev.ports import free_port, is_listening
from holdfast.dev.process import Child
from holdfast.domain.model_calls import Completion, StreamEvent
from holdfast.llm.pool import ModelPool

_ROOT = Path(__file__).parents[1]
_IN_FLIGHT = 20
_PARTS = 10
_MB = 1024 * 1024

#: What the second half of the calls may add. LiteLLM's caches fill up in the first.
MOST_GROWTH_MB = 20.0

HELLO = [{"role": "user", "content": "Say something of about ten words, if you please."}]


def main() -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help="how many calls (10,000)")
    options = parser.parse_args()
    _show_import()
    with TemporaryDirectory(prefix="holdfast-soak-") as folder:
        return asyncio.run(_run(Path(folder), options.calls))


def _show_import() -> None:
    before, started = _memory(), time.process_time()
    importlib.import_module("holdfast.llm.router")
    taken = time.process_time() - started
    print(f"import of litellm: {taken:.1f} s of CPU, {_memory() - before:.0f} MB")


async def _run(folder: Path, calls: int) -> int:
    port = free_port()
    command = [sys.executable, "-m", "holdfast.testing.provider", "--port", str(port)]
    provider = Child("provider", command, log=folder / "provider.log", cwd=_ROOT)
    try:
        await provider.wait_until(lambda: is_listening(port), timeout_s=30)
        memory = await _soak(_pool(f"http://127.0.0.1:{port}/v1"), calls)
    finally:
        provider.kill()
    growth = memory[-1] - memory[_PARTS // 2]
    print(f"memory: {memory[0]:.0f} MB before, {memory[-1]:.0f} MB after {calls} calls; second half {growth:+.1f} MB")
    if growth > MOST_GROWTH_MB:
        print(f"failed: that is more than {MOST_GROWTH_MB:.0f} MB", file=sys.stderr)
    return int(growth > MOST_GROWTH_MB)


def _pool(url: str) -> ModelPool:
    told = {"model": "openai/gpt-4o-mini", "api_base": url, "api_key": "none"}
    return ModelPool([{"model_name": "fast", "litellm_params": told, "model_info": {"id": "fast#1"}}], {}, {})


async def _soak(pool: ModelPool, calls: int) -> list[float]:
    """The memory in MB before, and after each tenth of the calls."""
    memory = [_memory()]
    half = calls // _PARTS // 2
    for part in range(1, _PARTS + 1):
        whole = await _make(pool, half, None)
        streamed = await _make(pool, half, _unheard)
        gc.collect()
        memory.append(_memory())
        print(f"{part * half * 2:>7} calls: {memory[-1]:4.0f} MB; whole {whole}; streamed {streamed}", flush=True)
    return memory


async def _make(pool: ModelPool, calls: int, listener: Callable[[StreamEvent], None] | None) -> str:
    """Make some calls; answers with what they took."""
    numbers = iter(range(calls))

    async def caller() -> None:
        for _ in numbers:
            _check(await pool.complete("fast", HELLO, listener=listener))

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(_IN_FLIGHT)))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return f"{cpu / calls * 1000:4.1f} ms CPU, {calls / seconds:4.0f}/s"


def _check(answer: Completion) -> None:
    if not answer.text.startswith("You said: ") or answer.usage.is_estimated:
        raise RuntimeError(f"a call went wrong: {answer!r}")


def _unheard(_: StreamEvent) -> None:
    """Streams are read to their end, and nobody listens."""


def _memory() -> float:
    return float(psutil.Process().memory_info().rss) / _MB


if __name__ == "__main__":
    sys.exit(main())
