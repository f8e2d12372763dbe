"""Serving an application until a signal comes."""

import uvicorn
from fastapi import FastAPI

#: Seconds that requests in hand have to end at a stop.
_GRACE_S = 10


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in hand end."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_GRACE_S,
    )
    await uvicorn.Server(config).serve()
