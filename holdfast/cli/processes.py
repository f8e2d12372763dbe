"""`holdfast api`, `holdfast worker` and `holdfast pool`: the processes, as children of nobody."""

import os
import sys
from pathlib import Path
from typing import NoReturn


def api() -> None:
    """Run the API. Settings: HOLDFAST_DATABASE_URL, HOLDFAST_KEY_PEPPER, TEMPORAL_ADDRESS, …"""
    _become("api")


def worker() -> None:
    """Run the worker. Settings: HOLDFAST_DATABASE_URL, HOLDFAST_AGENTS, TEMPORAL_ADDRESS, …"""
    _become("worker")


def pool() -> None:
    """Run the model pool by itself. Settings: HOLDFAST_DATABASE_URL, HOLDFAST_KEY_PEPPER, HOLDFAST_MODELS, …"""
    _become("api.pool")


def _become(module: str) -> NoReturn:
    import holdfast

    # `python -m` from our folder: another installed package may be called `api` or `worker`, too.
    here, root = Path.cwd(), Path(next(iter(holdfast.__path__))).parent
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (str(here), os.environ.get("PYTHONPATH")) if part)
    for variable in ("HOLDFAST_AGENTS", "HOLDFAST_MODELS"):
        if path := os.environ.get(variable):
            os.environ[variable] = str((here / path).resolve())
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, "-m", module])
