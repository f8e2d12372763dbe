"""Whether the process lives, and whether it can do its work."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.problems import documented
from api.wiring import pool_services

router = APIRouter(tags=["operations"])


class HealthShape(BaseModel):
    """`ok`, always: what is not well is answered with a problem."""

    status: str = "ok"


@router.get("/livez")
async def livez() -> HealthShape:
    """The process runs."""
    return HealthShape()


@router.get("/readyz", responses=documented(503))
@router.get("/health", include_in_schema=False)
async def readyz(request: Request) -> HealthShape:
    """The database answers. Temporal need not: messages are accepted without it, and started when it is back."""
    await pool_services(request).database.check_role()
    return HealthShape()
