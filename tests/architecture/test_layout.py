"""The repository has the shape that a newcomer is told."""

import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]

#: What may stand at the top: the five places of code, what is tried and measured with it, and what runs it.
TOP = {
    *("workflows", "activities", "worker", "api", "holdfast"),
    *("tests", "benchmarks", "examples", "docs", "deploy"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"),
    *("pyproject.toml", "uv.lock", "Makefile", ".ci", ".pre-commit-config.yaml", ".gitignore", ".gitattributes"),
    *("Dockerfile", ".dockerignore", "docker-compose.yml", ".env.example"),
}
ASKED_FOR = {"workflows", "activities", "worker", "api", "tests", "docker-compose.yml", "pyproject.toml"}

#: Names that say nothing, under which anything gathers.
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base", "core", "lib", "shared"}


def tracked() -> list[PurePosixPath]:
    """The files under version control, and those that are about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [PurePosixPath(line) for line in listed.stdout.splitlines()]


def test_nothing_unexpected_stands_at_the_top() -> None:
    assert {path.parts[0] for path in tracked()} - TOP == set()


def test_what_was_asked_for_stands_at_the_top() -> None:
    assert {path.parts[0] for path in tracked()} >= ASKED_FOR


def test_every_name_says_what_is_in_it() -> None:
    assert [path for path in tracked() if SAYS_NOTHING & {part.partition(".")[0] for part in path.parts}] == []


def test_no_state_and_no_secret_is_kept() -> None:
    forbidden = {".env", ".venv", ".holdfast", "dev.json", "__pycache__", "shop.sqlite"}
    assert [path for path in tracked() if forbidden & set(path.parts)] == []
