"""`python -m api`."""

import asyncio

from api.main import run
from holdfast.config.process import started_with
from holdfast.config.settings import ApiSettings

if __name__ == "__main__":
    with started_with(ApiSettings) as settings:
        asyncio.run(run(settings))
