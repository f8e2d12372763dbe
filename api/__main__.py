"""`python -m api`."""

import uvicorn

from api.app import create_app
from holdfast.config.process import started_with
from holdfast.config.settings import ApiSettings

if __name__ == "__main__":
    with started_with(ApiSettings) as settings:
        uvicorn.run(
            create_app(settings), host=settings.api_host, port=settings.api_port, log_config=None, access_log=False
        )
