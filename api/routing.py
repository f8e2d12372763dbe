"""What every route has: a query and a body read strictly, and its problems documented.

JSON leaves open what a key given twice means, and Python reads NaN and Infinity, which are no JSON. Where one reading
is confirmed and another one runs, nothing was confirmed: such a body is refused.
"""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from api.problems import documented
from holdfast.domain.errors import InvalidInput


class ResourceRoute(APIRoute):
    """A route whose body is read by `StrictRequest`, and whose documentation says what problems it answers with."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        methods = options.get("methods") or ()
        options["responses"] = {**_problems(path, set(methods)), **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            _refuse_doubles(request)
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


class StrictRequest(Request):
    """A request whose JSON means one thing only."""

    async def json(self) -> Any:
        """The body. Raises `json.JSONDecodeError` where it is not JSON, or has a key twice or a number without end."""
        if not hasattr(self, "_strict_json"):
            self._strict_json = read_strictly(await self.body())
        return self._strict_json


def resource(prefix: str, tag: str) -> APIRouter:
    """The router of a resource."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=ResourceRoute)


def read_strictly(body: bytes) -> Any:
    """What JSON text says.

    Raises:
        json.JSONDecodeError: it says nothing, or leaves open what it says.
    """
    try:
        return json.loads(body, object_pairs_hook=_once, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise _refused("It is nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        # Not UTF-8, or an integer of thousands of digits.
        raise _refused("It can't be read") from error


def _problems(path: str, methods: set[str]) -> dict[int | str, dict[str, Any]]:
    statuses = [401, 403, 422, 429, 503]
    if "{" in path:
        statuses.append(404)
    if methods & {"POST", "PUT", "PATCH"}:
        statuses += [400, 413]
    return documented(*sorted(statuses))


def _refuse_doubles(request: Request) -> None:
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        # `include[]=a&include[]=b` is how OpenAI's SDKs write a list; no route here reads such a name.
        if name in seen and not name.endswith("[]"):
            raise InvalidInput(name, "The parameter is there twice.")
        seen.add(name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _refused("A key is there twice")
    return found


def _refuse_constant(_: str) -> float:
    raise _refused("NaN and Infinity are no numbers of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _refused("A number is too large")
    return number


def _refused(why: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(why, "", 0)
