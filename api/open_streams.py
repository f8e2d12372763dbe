"""Streams that are open: so many of each person's, and each for as long as its reader's key or token is good.

A stream may last for as long as its run, which is days where people are asked. So who reads it is looked up again every
few seconds, as for a new request: through what is remembered of keys, so that many streams of one key cost one look.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials
from sqlalchemy.exc import SQLAlchemyError

from api.auth import bearer, calling
from api.wiring import Access, pool_services
from holdfast.domain.errors import CredentialRefused, Unauthenticated, Unavailable
from holdfast.domain.permissions import Caller

log = logging.getLogger(__name__)

#: How often whoever reads is looked up again, in seconds. They are remembered for as long, at most, beside it.
LOOK_AGAIN_S = 5.0


class OpenStream:
    """What a request reads along with. It counts from when it is opened: not every request that may be one is."""

    def __init__(self, access: Access, caller: Caller, credential: str, counted: ExitStack) -> None:
        self.caller = caller
        self._access = access
        self._credential = credential
        self._counted = counted
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        self._may_go_on = True

    def open(self) -> None:
        """Count it, until the request is over.

        Raises:
            TooManyRequests: its reader has too many open.
        """
        self._counted.enter_context(self._access.streams.open(self.caller))

    async def may_go_on(self) -> bool:
        """Whether its reader may still do all that they might when it began; looked up every few seconds."""
        if self._may_go_on and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_AGAIN_S
            self._may_go_on = await self._is_still_known()
            if not self._may_go_on:
                log.info("a stream was ended: its reader's key or token does not open it any more")
        return self._may_go_on

    async def _is_still_known(self) -> bool:
        try:
            found = await self._access.caller(self._credential)
        except Unauthenticated:
            return False
        except (Unavailable, SQLAlchemyError):
            # Nobody can tell now. While the database is away, nothing is told either; while the identity provider is, a
            # stream outlasts it, as a token that is known by its key does.
            return True
        return found.includes(self.caller)

    async def check(self) -> None:
        """Check that what it is waited for may still be told.

        Raises:
            CredentialRefused: it may not.
        """
        if not await self.may_go_on():
            raise CredentialRefused("The key or token that this was asked with is not valid any more.")


async def _stream(
    request: Request,
    caller: Annotated[Caller, Depends(calling)],
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
) -> AsyncIterator[OpenStream]:
    # Left when the last byte is sent, or the client has gone.
    with ExitStack() as counted:
        yield OpenStream(pool_services(request).access, caller, credentials.credentials, counted)


#: In a route's signature: the stream that it may answer with.
Stream = Annotated[OpenStream, Depends(_stream)]
