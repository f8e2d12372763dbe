"""Who is calling: the API key says which tenant and which person, never the body."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.wiring import pool_services
from holdfast.domain.errors import Unauthenticated
from holdfast.services.keys import Caller

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer hf_…`")


async def _caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    found = pool_services(request)
    try:
        if credentials is None:
            raise Unauthenticated("Send an API key: Authorization: Bearer hf_…")
        caller = await found.keys.caller(credentials.credentials)
    except Unauthenticated:
        found.limits.count_failure(request.client.host if request.client else "")
        raise
    found.limits.admit(caller)
    return caller


#: In a route's signature: only callers with a valid key come in.
Authenticated = Annotated[Caller, Depends(_caller)]
