"""The tree of errors: drawn as it is, and told to callers as problems."""

import ast
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from api import problems
from holdfast.domain import errors
from holdfast.domain.errors import (
    BudgetExceeded,
    ConfigurationError,
    Conflict,
    CredentialRefused,
    DigestMismatch,
    Forbidden,
    Gone,
    HoldfastError,
    IdempotencyMismatch,
    InvalidInput,
    ModelError,
    ModelMisconfigured,
    ModelRequestRefused,
    ModelsUnavailable,
    NotFound,
    NoValidAnswer,
    PermissionMissing,
    Stopped,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)

ROOT = Path(__file__).parents[2]

#: What each is answered with. A file that is wrong ends no request: that never reaches a caller.
STATUS: list[tuple[HoldfastError, int]] = [
    (InvalidInput("text", "the text"), 422),
    (IdempotencyMismatch("Idempotency-Key", "the text"), 422),
    (Unauthenticated("the text"), 401),
    (CredentialRefused("the text"), 401),
    (Forbidden("the text"), 403),
    (PermissionMissing("the text"), 403),
    (NotFound("run", "run_1"), 404),
    (Gone("the text"), 410),
    (Conflict("the text"), 409),
    (DigestMismatch("the text"), 412),
    (BudgetExceeded("the text"), 429),
    (TooManyRequests("the text", timedelta(seconds=3)), 429),
    (Stopped("the text"), 503),
    (Unavailable("the text"), 503),
    (ModelsUnavailable("the text"), 503),
    (ModelRequestRefused("the text"), 422),
    (ModelMisconfigured("the text"), 502),
    (NoValidAnswer("the text", [("$.name", "is missing")]), 502),
]
NEVER_REACHES_A_CALLER = {HoldfastError, ConfigurationError, ModelError}

#: Told by the API to the command line, which knows the tree only from its answers.
DEFINED_ELSEWHERE = {
    "holdfast/cli/connection.py": {"Refused"},
    "holdfast/cli/tools.py": {"ToolFailed"},
    "holdfast/services/audit_heads.py": {"NotSigned"},
}


def tree() -> dict[str, str]:
    """Each error's name with its parent's."""
    defined = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HoldfastError)]
    return {kind.__name__: kind.__bases__[0].__name__ for kind in defined if kind is not HoldfastError}


def drawn() -> Iterator[tuple[str, str]]:
    """The same, as the docstring draws it."""
    above: dict[int, str] = {0: "HoldfastError"}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r" {4}([ │]*)[├└]── (\w+)", line):
            depth = len(found.group(1)) // 4
            above[depth + 1] = found.group(2)
            yield found.group(2), above[depth]


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Every class of ours, with the file that defines it."""
    for folder in ("holdfast", "workflows", "activities", "worker", "api"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    yield path.relative_to(ROOT).as_posix(), node


def test_the_docstring_draws_the_tree() -> None:
    assert dict(drawn()) == tree()


def test_no_error_grows_outside_of_the_tree() -> None:
    known = {"HoldfastError", *tree()}
    elsewhere: dict[str, set[str]] = {}
    for place, node in classes():
        # A private one never leaves its module.
        if not node.name.startswith("_") and known & {ast.unparse(base) for base in node.bases}:
            elsewhere.setdefault(place, set()).add(node.name)
    assert elsewhere.pop("holdfast/domain/errors.py") == set(tree())
    assert elsewhere == DEFINED_ELSEWHERE


def test_every_error_reaches_callers_with_a_status_or_not_at_all() -> None:
    told = {type(error) for error, _ in STATUS}
    assert {kind.__name__ for kind in told | NEVER_REACHES_A_CALLER} == {"HoldfastError", *tree()}


async def answered_with(error: Exception) -> httpx.Response:
    app = FastAPI()
    problems.install(app)

    @app.get("/raise")
    async def _() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        return await client.get("/raise")


@pytest.mark.parametrize(("error", "status"), STATUS, ids=lambda value: type(value).__name__)
async def test_an_error_is_answered_as_a_problem(error: HoldfastError, status: int) -> None:
    response = await answered_with(error)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["detail"], problem["instance"]) == (status, str(error), "/raise")
    assert problem["title"] != "Error"
    assert problem["error"]["message"] == str(error)


async def test_a_problem_names_the_field_and_says_when_to_come_again() -> None:
    invalid = await answered_with(InvalidInput("metadata.source", "is too long"))
    assert invalid.json()["errors"] == [{"field": "metadata.source", "detail": "is too long"}]
    unavailable = await answered_with(Unavailable("Temporal does not answer"))
    assert unavailable.headers["retry-after"] == "2"
    challenges = {
        "Bearer": Unauthenticated("no key"),
        'Bearer error="invalid_token"': CredentialRefused("an old key"),
        'Bearer error="insufficient_scope"': PermissionMissing("a role is missing"),
    }
    for challenge, error in challenges.items():
        assert (await answered_with(error)).headers["www-authenticate"] == challenge
    assert "www-authenticate" not in (await answered_with(Forbidden("their own request"))).headers


async def test_what_nobody_foresaw_shows_nothing_of_the_inside() -> None:
    response = await answered_with(RuntimeError("password=hunter2"))
    assert response.status_code == 500
    assert "hunter2" not in response.text
