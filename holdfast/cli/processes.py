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

    # `-P`, and our folder first: another package, installed or here, may be called `api` or `worker`, too.
    root, here = Path(next(iter(holdfast.__path__))).parent, Path.cwd()
    path = (str(root), str(here), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    os.execv(sys.executable, [sys.executable, "-P", "-m", module])
