"""Who imports whom: down only, nothing heavy where it costs, and the names that are ours are found to be ours."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("holdfast", "workflows", "activities", "worker", "api")


def modules_of(package: str) -> list[str]:
    """Every module of a package, by its name."""
    files = sorted(ROOT.joinpath(*package.split(".")).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]


def python(code: str, **environ: str) -> str:
    """What a fresh interpreter, started where our processes are, prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after it ran some code."""
    printed = python(f"{code}\nimport json, sys; print(json.dumps([name.partition('.')[0] for name in sys.modules]))")
    return set(json.loads(printed.splitlines()[-1]))


def test_the_import_order_is_kept() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_the_command_line_starts_light() -> None:
    run_help = "import sys\nsys.argv = ['holdfast', '--help']\nfrom holdfast.cli.main import app\n"
    imported = imported_after(f"{run_help}try:\n    app()\nexcept SystemExit as end:\n    assert end.code == 0")
    assert "typer" in imported
    assert not imported & {"litellm", "temporalio", "sqlalchemy", "fastapi", "asyncpg", "httpx", "uvicorn", "alembic"}


def test_workflows_import_nothing_heavy() -> None:
    imported = imported_after(f"import {', '.join(modules_of('workflows'))}")
    assert "temporalio" in imported
    heavy = {"litellm", "sqlalchemy", "asyncpg", "httpx", "fastapi", "pydantic_settings"}
    assert not imported & heavy
    assert not imported & {"activities", "worker", "api"}


def test_the_domain_imports_pydantic_and_what_is_small() -> None:
    imported = imported_after(f"import {', '.join(modules_of('holdfast.domain'))}")
    assert not imported & {"temporalio", "litellm", "sqlalchemy", "httpx", "fastapi", "typer", "yaml"}


def test_only_the_pool_imports_litellm_and_not_before_it_is_made() -> None:
    assert "litellm" not in imported_after("import holdfast.llm.pool, worker.wiring, api.wiring, api.app, api.pool")
    imports = re.compile(r"^\s*(import|from) litellm\b", re.MULTILINE)
    users = {path for path in ROOT.glob("holdfast/**/*.py") if imports.search(path.read_text(encoding="utf-8"))}
    assert users == {ROOT / "holdfast/llm/library.py"}


def test_the_api_and_the_pool_answer_livez_without_litellm() -> None:
    ask = """
import asyncio, httpx, api.app, api.pool
from api.wiring import Access, PoolServices

async def livez():
    access = Access(keys=None, tokens=None, limits=None, streams=None, hosts=None)
    app = api.pool.create_app(PoolServices(database=None, access=access, models=None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/livez")).json() == {"status": "ok"}

asyncio.run(livez())
"""
    imported = imported_after(ask)
    assert "fastapi" in imported
    assert "litellm" not in imported


def test_litellm_asks_nobody_when_it_is_imported() -> None:
    nobody = """
import socket

def refuse(*_):
    raise AssertionError("it went to the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from holdfast.llm.library import litellm
assert len(litellm.model_cost) > 1000
assert litellm.telemetry is False
"""
    python(nobody)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_process_finds_our_package_and_no_other_of_that_name(package: str, tmp_path: Path) -> None:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not ours')\n")
    # Where a user stands is searched after where our processes stand.
    printed = python(f"import {package}; print(*{package}.__path__)", PYTHONPATH=str(tmp_path))
    assert Path(printed.strip()) == ROOT / package


@pytest.mark.parametrize("package", PACKAGES)
def test_no_installed_package_stands_in_the_way(package: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import {package}; print(*{package}.__path__)\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == ROOT / package


def test_every_init_is_empty() -> None:
    # A parent's runs in every sandbox, and before every module below it.
    inits = [path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    assert len(inits) >= len(PACKAGES)
    assert [path for path in inits if path.read_bytes()] == []
