"""Who is calling, and whether they may: the key says which tenant and which person, the table of permissions what for.

A route names the permission it needs in its signature: `caller: Annotated[Caller, needs(Permission.RUNS_READ)]`. An
application with a route that names none is not built.
"""

import re
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.shapes import ID_PATTERN
from api.wiring import pool_services
from holdfast.domain.errors import PermissionMissing, Unauthenticated
from holdfast.domain.permissions import Caller, Permission
from holdfast.services.refusals import Asked, recording_refusals

#: Where a key or a token stands.
bearer = HTTPBearer(
    auto_error=False, description="An API key (`Authorization: Bearer hf_…`), or a token of the identity provider"
)

#: Methods that change nothing, so that refusing them is not worth a row.
_READING = frozenset({"GET", "HEAD"})

_ID = re.compile(ID_PATTERN)

#: What anybody may read: no route here may tell of a tenant.
PUBLIC = frozenset({"/health", "/livez", "/readyz", "/metrics", "/docs", "/docs/{file}", "/openapi.json"})

#: Where a person comes with a key that is in no header yet, and Slack with a signature. The route checks it.
_CHECKED_BY_THE_ROUTE = frozenset({"/codec/sign-in", "/slack/events", "/slack/interactions"})


async def calling(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    """Who makes a request."""
    return await admitted(request, None if credentials is None else credentials.credentials)


async def admitted(request: Request, credential: str | None) -> Caller:
    """Whose a key or a token is; each request counts for its caller, one without a key that is known for its address.

    Raises:
        Unauthenticated: it is none.
        TooManyRequests: there were too many.
    """
    access = pool_services(request).access
    try:
        if credential is None:
            raise Unauthenticated("Send an API key: Authorization: Bearer hf_…")
        caller = await access.caller(credential)
    except Unauthenticated:
        access.limits.count_failure(request.client.host if request.client else "")
        raise
    access.limits.admit(caller)
    return caller


class Needs:
    """Lets in whom the table gives a permission."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request, caller: Annotated[Caller, Depends(calling)]) -> Caller:
        if caller.may(self.permission):
            return caller
        refusal = PermissionMissing(f"Your roles don't give the permission {self.permission}.")
        if request.method in _READING:
            raise refusal
        async with recording_refusals(pool_services(request).database, caller, self._asked(request)):
            raise refusal

    def _asked(self, request: Request) -> Asked:
        """What is refused: the route, with the names of its parameters, and what the path named."""
        route = f"{request.method} {request.scope['route'].path}"
        subject_id = next(iter(request.path_params.values()), "")
        what = f"{self.permission} is missing: {route}"
        return Asked(what, subject_id if _ID.fullmatch(subject_id) else None)


def needs(permission: Permission) -> Any:
    """In a route's signature: only callers with a valid key and this permission come in."""
    return Depends(Needs(permission))


def needed(app: FastAPI) -> dict[tuple[str, str], Permission]:
    """What each route of an application needs, by method and path; those that anybody may read are left out.

    Raises:
        TypeError: a route names no permission.
    """
    found: dict[tuple[str, str], Permission] = {}
    for route in iter_route_contexts(app.routes):
        if route.path in _CHECKED_BY_THE_ROUTE or (
            route.path in PUBLIC and route.methods and route.methods <= _READING
        ):
            continue
        permission = _named(getattr(route, "dependant", None))
        if permission is None:
            raise TypeError(f"the route {route.path} names no permission: add `needs(Permission.…)` to its signature")
        found.update({(method, str(route.path)): permission for method in route.methods or ()})
    return found


def _named(dependant: Dependant | None) -> Permission | None:
    dependencies = [] if dependant is None else dependant.dependencies
    named = [dependency.call.permission for dependency in dependencies if isinstance(dependency.call, Needs)]
    return named[0] if named else None
