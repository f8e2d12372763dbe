"""The API process: build, serve, stop on SIGTERM."""

from api import wiring
from api.app import create_app
from api.serving import serve
from holdfast.config.settings import ApiSettings


async def run(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in hand end.

    Raises:
        ConfigurationError: a variable is wrong, or the database's role is not bound by row-level security.
        Unavailable: the database does not answer at the start.
    """
    async with wiring.wire(settings) as services:
        await serve(
            create_app(services),
            settings.api_host,
            settings.api_port,
            unread_s=settings.api_unread_s,
            on_stop=services.events.stop,
        )
