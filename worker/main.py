"""The worker process: build, run, drain on SIGTERM."""

import asyncio
import contextlib
import logging
import signal

from holdfast.config.settings import WorkerSettings
from worker import health, wiring

log = logging.getLogger(__name__)


async def run(settings: WorkerSettings) -> None:
    """Work until SIGTERM or SIGINT, then let running activities end, for at most `worker_drain_s` seconds.

    Raises:
        ConfigurationError: a file or variable is wrong.
        Unavailable: the database or Temporal does not answer at the start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # `dev` is for this machine alone; elsewhere an orchestrator asks, from outside.
    host = "127.0.0.1" if settings.environment == "dev" else "0.0.0.0"
    async with (
        wiring.wire(settings) as parts,
        health.serving(host, settings.worker_health_port, parts.worker, parts.database),
        parts.worker,
    ):
        log.info("working on task queue %s", settings.task_queue)
        await stop.wait()
        log.info("draining: running activities have %g s to end", settings.worker_drain_s)
