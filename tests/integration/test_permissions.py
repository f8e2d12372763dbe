"""Every route with every role: 403 exactly where the table says so, 401 without a key."""

from types import SimpleNamespace
from typing import Annotated, Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI

import api.app
import api.pool
from api.auth import needed, needs
from api.permissions_page import routes
from api.wiring import Services
from holdfast.domain.permissions import PERMISSIONS, Caller, Permission, Role
from tests.conftest import new_tenant
from tests.harness.stage import Stage

#: One that policies may ask for and that gives nothing, and each of those that give something.
ROLES = ["billing", *Role]

#: What somebody who is let in is answered when they name what does not exist, and send nothing.
LET_IN = {200, 204, 400, 404, 422}

_IDS = (
    *("run_id", "confirmation_id", "tool_call_id", "conversation_id", "key_id", "name", "provider"),
    *("webhook_id", "delivery_id", "agent", "chat_id", "response_id"),
)


def named(path: str) -> str:
    for name in _IDS:
        path = path.replace(f"{{{name}}}", "unknown")
    path = path.replace("{scope}", "agent:unknown")
    assert "{" not in path, f"say in this test what stands for the parameter of {path}"
    return path


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("service", ["api", "pool"])
async def test_every_route_is_closed_to_whom_the_table_does_not_name(
    stage: Stage, pool_url: str, service: str, role: str
) -> None:
    caller = await stage.caller(new_tenant(), only=[role])
    url = pool_url if service == "pool" else stage.url
    answers: dict[tuple[str, str], int] = {}
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {caller.key}"}) as client:
        for method, path in of(service):
            answers[method, path] = (await client.request(method, named(path))).status_code

    allowed = PERMISSIONS[Role(role)] if role in set(Role) else {}
    forbidden = {route for route, permission in of(service).items() if permission not in allowed}
    assert {route for route, status in answers.items() if status == 403} == forbidden
    assert {status for route, status in answers.items() if route not in forbidden} <= LET_IN


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer hf_unknown"}, {"authorization": "Basic eDp5"}])
async def test_every_route_asks_who_is_calling(stage: Stage, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=stage.url, headers=headers) as client:
        for method, path in routes():
            response = await client.request(method, named(path))
            assert (path, response.status_code) == (path, 401)
            assert response.headers["www-authenticate"].startswith("Bearer")


def of(service: str) -> dict[tuple[str, str], Permission]:
    """The routes of a service: of the API all, of the pool those of the models."""
    return {
        route: permission
        for route, permission in routes().items()
        if service == "api" or permission is Permission.MODELS_USE
    }


def an_open_router() -> Any:
    router = APIRouter()

    @router.get("/v1/everything")
    async def everything() -> str:
        return "everything"

    return SimpleNamespace(router=router)


def test_an_application_with_a_route_that_names_no_permission_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    services = cast(
        Services, SimpleNamespace(models=None, slack=None, access=SimpleNamespace(hosts=None), temporal_ui_url=None)
    )
    api.app.create_app(services)
    monkeypatch.setattr(api.app, "RESOURCES", (*api.app.RESOURCES, an_open_router()))
    monkeypatch.setattr(api.pool, "health", an_open_router())
    for create_app in (api.app.create_app, api.pool.create_app):
        with pytest.raises(TypeError, match="/v1/everything names no permission"):
            create_app(services)


def test_what_anybody_may_read_can_not_be_written() -> None:
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.post("/health")
    async def write() -> str:
        return ""

    with pytest.raises(TypeError, match="/health names no permission"):
        needed(app)


def test_a_route_behind_another_router_is_seen() -> None:
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")

    @inner.get("/one")
    async def one(caller: Annotated[Caller, needs(Permission.RUNS_READ)]) -> str:
        return caller.person

    outer.include_router(inner)
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(outer)
    assert needed(app) == {("GET", "/outer/inner/one"): Permission.RUNS_READ}


def test_every_permission_is_explained_and_given_to_somebody() -> None:
    given = {permission for permissions in PERMISSIONS.values() for permission in permissions}
    assert given == set(Permission)
    assert set(PERMISSIONS) == set(Role)
    assert all(permission.sentence.endswith(".") for permission in Permission)


def test_every_permission_opens_something() -> None:
    assert set(routes().values()) == set(Permission), "a role would be said to allow what there is not"


def test_an_auditor_changes_nothing() -> None:
    assert all(permission.endswith(".read") for permission in PERMISSIONS[Role.AUDITOR])
