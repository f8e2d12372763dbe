"""Who is being answered, and who went away before: a scripted provider sees its clients come and go."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send


@dataclass
class Tally:
    """The requests between two resets. A request stays in the tally that it came under."""

    abandoned: int = 0
    in_flight: int = 0
    most_in_flight: int = 0

    def arrives(self) -> None:
        """A request has come, and is being answered."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)


class Watched:
    """Answers a request that has arrived, as an ASGI application; gives up as soon as its client is gone."""

    def __init__(self, respond: Callable[[], Awaitable[Response]], tally: Tally) -> None:
        self._respond = respond
        self._tally = tally
        self._is_open = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = asyncio.create_task(self._answer(scope, receive, send))
        leaving = asyncio.create_task(self._leaves_early(receive))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            left = leaving.done() and leaving.result()
            if not left:
                await answering
        finally:
            answering.cancel()
            leaving.cancel()
            self._end()
        # Counted last: who sees it counted finds it no longer in flight.
        self._tally.abandoned += left

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_end(message: Message) -> None:
            # Before the client can know: who has the whole answer finds the request no longer in flight.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._end()
            await send(message)

        response = await self._respond()
        await response(scope, receive, send_and_end)

    async def _leaves_early(self, receive: Receive) -> bool:
        # The server says "disconnect" when the answer is complete, too.
        while (await receive())["type"] != "http.disconnect":
            pass
        return self._is_open

    def _end(self) -> None:
        self._tally.in_flight -= self._is_open
        self._is_open = False
