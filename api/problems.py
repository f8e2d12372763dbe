"""Errors as RFC 9457 problem details. The only place with status codes for errors.

Each problem also carries OpenAI's `error` object, so that clients written for that API show something sensible.
"""

import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from holdfast.domain.errors import (
    BudgetExceeded,
    Conflict,
    CredentialRefused,
    DigestMismatch,
    Forbidden,
    Gone,
    HoldfastError,
    IdempotencyMismatch,
    InvalidInput,
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
from holdfast.secrecy.redaction import redacted

_STATUS: Mapping[type[HoldfastError], int] = {
    InvalidInput: 422,
    IdempotencyMismatch: 422,
    Unauthenticated: 401,
    CredentialRefused: 401,
    Forbidden: 403,
    PermissionMissing: 403,
    NotFound: 404,
    Gone: 410,
    Conflict: 409,
    DigestMismatch: 412,
    BudgetExceeded: 429,
    TooManyRequests: 429,
    Stopped: 503,
    Unavailable: 503,
    ModelsUnavailable: 503,
    ModelRequestRefused: 422,
    ModelMisconfigured: 502,
    NoValidAnswer: 502,
}

_TITLE = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Invalid input",
    429: "Too many requests",
    500: "Internal error",
    502: "Bad gateway",
    503: "Unavailable",
}

#: Where the status says too little.
_TITLE_OF: Mapping[type[HoldfastError], str] = {
    BudgetExceeded: "Budget exceeded",
    ModelsUnavailable: "All providers unavailable",
    ModelMisconfigured: "Model misconfigured",
    NoValidAnswer: "No valid answer",
    Stopped: "Stopped",
}

_UNEXPECTED = "Something went wrong on our side; it is in the log under the request's id."

#: Seconds after which a caller may try again what was unavailable.
_RETRY_AFTER_S = 2

#: The same, of what a person has stopped, and a person will let go on.
_RETRY_STOPPED_AFTER_S = 60

_CONTENT_TYPE = "application/problem+json"

#: In a request's scope: the status of input that can't be taken, where its clients know another one than 422.
INVALID_AS = "holdfast.invalid_as"


class WrongField(BaseModel):
    """Something that is wrong with the input, and where."""

    field: str
    detail: str


class OpenAiError(BaseModel):
    """The error as OpenAI's API would say it."""

    message: str
    type: str
    param: str | None
    code: str


class Problem(BaseModel):
    """What went wrong (RFC 9457), and, in `error`, the same for clients that were written for OpenAI's API."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[WrongField] | None = None
    error: OpenAiError


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems that a route answers with, for its `responses`."""
    content = {_CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _TITLE[status], "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Have every error of the application answered as a problem, and the documentation say what a problem is."""
    _document(app)
    app.add_exception_handler(HoldfastError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_unexpected)


def _document(app: FastAPI) -> None:
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generated()
        known = schema.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, part in {**problem.pop("$defs"), "Problem": problem}.items():
            known.setdefault(name, part)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    field: str | None = None,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem document. `field` and `errors` name what is wrong with the input."""
    body = _body(request, status, detail, _TITLE.get(status, "Error"), field, errors)
    return JSONResponse(body, status, headers, media_type=_CONTENT_TYPE)


def as_problem(request: Request, error: HoldfastError) -> dict[str, Any]:
    """An error of ours as a problem document, for where no status can be sent any more."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    if isinstance(error, InvalidInput):
        status = request.scope.get(INVALID_AS, status)
    title = _TITLE_OF.get(type(error)) or _TITLE.get(status, "Error")
    field = error.field if isinstance(error, InvalidInput) else None
    wrong = error.errors if isinstance(error, NoValidAnswer) else []
    errors = [{"field": path, "detail": what} for path, what in wrong]
    return _body(request, status, str(error), title, field, errors)


def unexpected(request: Request) -> dict[str, Any]:
    """An error that nobody foresaw as a problem document, for where no status can be sent any more."""
    return _body(request, 500, _UNEXPECTED, _TITLE[500], None, None)


def _body(
    request: Request, status: int, detail: str, title: str, field: str | None, errors: list[dict[str, str]] | None
) -> dict[str, Any]:
    code = title.lower().replace(" ", "_")
    # Whatever an error of ours quotes, of an input or of another error.
    detail = redacted(detail)
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    body["instance"] = redacted(request.url.path)
    if field is not None or errors:
        body["errors"] = [_without_secrets(one) for one in errors or [{"field": field or "", "detail": detail}]]
    body["error"] = {"message": detail, "type": code, "param": field, "code": code}
    return body


def _without_secrets(error: dict[str, str]) -> dict[str, str]:
    return {**error, "detail": redacted(error["detail"])}


async def _on_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HoldfastError)
    body = as_problem(request, error)
    headers = _headers(error, body["status"])
    if isinstance(error, Conflict) and INVALID_AS in request.scope:
        # OpenAI's SDKs take a 409 for a lock that will be free in a moment.
        headers = {**headers, "x-should-retry": "false"}
    return JSONResponse(body, body["status"], headers, media_type=_CONTENT_TYPE)


def _headers(error: HoldfastError, status: int) -> dict[str, str]:
    """What RFC 6750 and RFC 9110 want beside the status."""
    if isinstance(error, CredentialRefused):
        return {"www-authenticate": 'Bearer error="invalid_token"'}
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, PermissionMissing):
        return {"www-authenticate": 'Bearer error="insufficient_scope"'}
    return _retry_after(error, status)


def _retry_after(error: HoldfastError, status: int) -> dict[str, str]:
    wanted = error.retry_after if isinstance(error, ModelsUnavailable | TooManyRequests) else None
    if wanted is not None:
        return {"retry-after": str(max(1, math.ceil(wanted.total_seconds())))}
    if isinstance(error, Stopped):
        return {"retry-after": str(_RETRY_STOPPED_AFTER_S)}
    return {"retry-after": str(_RETRY_AFTER_S)} if status == 503 else {}


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if any(wrong["loc"][0] == "path" for wrong in error.errors()):
        return problem(request, 404, "There is nothing at this path.")
    # The input is not echoed: it may hold what must not be in a log.
    errors = [{"field": _field(wrong["loc"]), "detail": _said(wrong)} for wrong in error.errors()]
    first = errors[0]
    if first["field"] == "body" and any(wrong["type"] == "json_invalid" for wrong in error.errors()):
        why = next((str(wrong["ctx"]["error"]) for wrong in error.errors() if "ctx" in wrong), "it can't be read")
        return problem(request, 400, f"The body is not valid JSON: {why}.", field="body")
    status = request.scope.get(INVALID_AS, 422)
    return problem(request, status, f"{first['field']}: {first['detail']}", field=first["field"], errors=errors)


def _said(wrong: Mapping[str, Any]) -> str:
    # What one of our own checks says, without pydantic's word for it.
    return str(wrong["msg"]).removeprefix("Value error, ")


def _field(location: tuple[Any, ...]) -> str:
    # `body.text` is the body's `text`; a broken body itself is located by a character position.
    parts = [str(part) for part in location[1:] if not isinstance(part, int) or len(location) > 2]
    return ".".join(parts) or str(location[0])


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 204:
        return Response(status_code=204)
    return problem(request, error.status_code, str(error.detail), headers=error.headers)


async def _on_unexpected(request: Request, _: Exception) -> JSONResponse:
    return problem(request, 500, _UNEXPECTED)
