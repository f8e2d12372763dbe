"""The API process: build, serve, stop on SIGTERM."""

import uvicorn

from api import wiring
from api.app import create_app
from holdfast.config.settings import ApiSettings


async def run(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in hand end.

    Raises:
        ConfigurationError: a variable is wrong, or the database's role is not bound by row-level security.
        Unavailable: the database does not answer at the start.
    """
    async with wiring.wire(settings) as services:
        config = uvicorn.Config(
            create_app(services),
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=10,
        )
        await uvicorn.Server(config).serve()
