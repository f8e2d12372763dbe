"""The built-in tool `http_request`: a model asks an HTTP API, on hosts that its agent's configuration names.

What it may ask: `holdfast.tools.http_rules`. How it is asked: `holdfast.tools.http_exchange`. Here: what the model
sees, and redirects, which are followed one by one, each checked as if it were the first request.

A redirect that is not followed is not an error but the answer: the first server may have done what it was asked to.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holdfast.domain.agents import AgentSpec, HttpAccess
from holdfast.tools.functions import tool_from_function
from holdfast.tools.http_exchange import TOTAL_S, Exchanger, Response
from holdfast.tools.http_rules import (
    REDIRECTS,
    Method,
    Request,
    RequestFailed,
    RequestRefused,
    allowed_request,
    redirected,
)
from holdfast.tools.registry import Tool

MAX_REDIRECTS = 3


def http_request_tool(exchanger: Exchanger | None = None) -> Tool:
    """The tool. Of no agent, it refuses each call; `Tool.bound_to` makes it an agent's, with the hosts of its list.

    It counts as irreversible and not repeatable, as any tool that says nothing else: GET and HEAD are reads by
    convention only.
    """
    asking = exchanger or Exchanger()

    async def http_request(
        method: Method, url: str, headers: dict[str, str] | None = None, body: str | None = None
    ) -> dict[str, Any]:
        """Make an HTTP request; answers with the status, some headers and the body's text. Redirects are followed."""
        return await _answer(asking, HttpAccess(), method, url, headers or {}, body)

    tool = tool_from_function(http_request)

    def for_agent(agent: AgentSpec) -> Tool:
        def call(arguments: dict[str, Any], _: str) -> Any:
            given = {**arguments, "headers": arguments.get("headers") or {}}
            return _answer(asking, agent.http, **given)

        hosts = ", ".join(agent.http.allow) or "none"
        return replace(tool, description=f"{tool.description} Hosts that may be asked: {hosts}.", call=call)

    return replace(tool, for_agent=for_agent)


async def _answer(
    exchanger: Exchanger, access: HttpAccess, method: str, url: str, headers: Mapping[str, str], body: str | None
) -> dict[str, Any]:
    deadline = asyncio.get_running_loop().time() + TOTAL_S
    request = allowed_request(access, method, url, headers, body)
    response = await exchanger.exchange(request, deadline)
    for _ in range(MAX_REDIRECTS):
        if not _leads_on(response):
            return _shown(request, response)
        try:
            following = redirected(access, request, response.status, response.location or "")
            request, response = following, await exchanger.exchange(following, deadline)
        except (RequestRefused, RequestFailed) as error:
            return _shown(request, response, f"the redirect was not followed: {error}")
    note = f"not followed any further, after {MAX_REDIRECTS} redirects" if _leads_on(response) else None
    return _shown(request, response, note)


def _leads_on(response: Response) -> bool:
    return response.status in REDIRECTS and response.location is not None


def _shown(request: Request, response: Response, note: str | None = None) -> dict[str, Any]:
    """What the model reads. The body comes last, since what is too long is cut at its end."""
    notes = [text for text in (note, response.note) if text is not None]
    return {
        "status": response.status,
        "url": str(request.url),
        "headers": dict(response.headers),
        **({"note": "; ".join(notes)} if notes else {}),
        "body": response.body,
    }
