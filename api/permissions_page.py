"""`docs/permissions.md`, from the table of permissions and the routes: `python -m api.permissions_page` writes it."""

from pathlib import Path

from fastapi import FastAPI

from api import app as api_app
from api.auth import needed
from api.routes import models
from holdfast.domain.permissions import PERMISSIONS, Permission, Reach, Role

PAGE = Path(__file__).parents[1] / "docs" / "permissions.md"

_HEAD = """\
# Who may do what

Made by `make permissions` from the table in `holdfast/domain/permissions.py`. What is not here is not allowed.

`own`: what came of one's own messages, with whichever key or token they came. `asked`: also what a person was asked
about. `all`: everybody's of the tenant. What is out of reach is answered like what does not exist: 404. A missing
permission is answered 403, a missing key 401. How roles are given: [keys and roles](how-to/keys-and-roles.md).
"""

_CELLS = {None: "", Reach.OWN: "own", Reach.ASKED: "asked", Reach.TENANT: "all"}


def page() -> str:
    """The page."""
    names = [role.value for role in Role]
    by_permission = [[f"`{one}`", one.sentence, *_cells(one)] for one in Permission]
    in_order = sorted((path, method, permission) for (method, path), permission in routes().items())
    by_route = [[f"`{method} {path}`", f"`{one}`", *_cells(one)] for path, method, one in in_order]
    parts = [
        _HEAD,
        "## Permissions\n",
        _table(["permission", "what it lets one do", *names], by_permission),
        "## Routes\n",
        _table(["route", "needs", *names], by_route),
    ]
    return "\n".join(parts)


def routes() -> dict[tuple[str, str], Permission]:
    """Every route of the API and of the model pool, by method and path, with what it needs."""
    app = FastAPI(docs_url=None, redoc_url=None)
    for resource in (*api_app.RESOURCES, models):
        app.include_router(resource.router)
    return needed(app)


def _cells(permission: Permission) -> list[str]:
    found = [PERMISSIONS[role].get(permission) for role in Role]
    has_reach = set(found) - {None, Reach.TENANT}
    return [_CELLS[one] if has_reach or one is None else "yes" for one in found]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
