"""What is installed is what was locked, byte for byte."""

import tomllib
from pathlib import Path

LOCKED = tomllib.loads(Path("uv.lock").read_text())["package"]


def test_every_file_of_every_package_has_its_hash() -> None:
    packages = [package for package in LOCKED if package["name"] != "holdfast"]
    assert len(packages) > 50
    for package in packages:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files, package["name"]
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_every_package_comes_from_the_index() -> None:
    assert {tuple(package["source"]) for package in LOCKED if package["name"] != "holdfast"} == {("registry",)}
