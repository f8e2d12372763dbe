"""`python -m worker`."""

import asyncio

from holdfast.config.process import started_with
from holdfast.config.settings import WorkerSettings
from worker.main import run

if __name__ == "__main__":
    with started_with(WorkerSettings) as settings:
        asyncio.run(run(settings))
