"""`.mcp.lock.json`: which tools of MCP servers a person has accepted, and as what.

It belongs into version control, beside `.mcp.json`. Each tool's whole definition stands in it, not only the digest, so
that a change of it can be read in a review; keys are sorted, so that nothing else moves.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import RootModel

from holdfast.config.json_source import read_json
from holdfast.config.messages import configuration_error
from holdfast.config.shape import fit
from holdfast.domain.mcp import Definition, Pin


class LockShape(RootModel[dict[str, Pin]]):
    """The file: what was accepted, by the name that agents know the tool by."""


def lock_path(mcp_path: Path) -> Path:
    """Where the lock of a file of servers is: `.mcp.lock.json` for `.mcp.json`."""
    return mcp_path.with_name(f"{mcp_path.name.removesuffix('.json')}.lock.json")


def read_lock(path: Path) -> dict[str, Pin]:
    """What was accepted, by the tool's name; nothing, if there is no file yet.

    Raises:
        ConfigurationError: the file is wrong, or a digest in it is not the one of its definition.
    """
    if not path.exists():
        return {}
    source = read_json(path)
    pins = fit(source, LockShape).root
    mend = "remove the tool here, then run `holdfast tools accept`"
    mistakes = [
        source.mistake((name, "digest"), "is not the digest of the definition below it", mend)
        for name, pin in pins.items()
        if not _is_whole(pin)
    ]
    if mistakes:
        raise configuration_error(mistakes)
    return pins


def write_lock(path: Path, pins: Mapping[str, Pin]) -> None:
    """Write what is accepted, so that a reader finds the old file or the new one, whole."""
    said = LockShape(dict(pins)).model_dump(mode="json")
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(f"{json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False)}\n", encoding="utf-8")
    os.replace(fresh, path)


def accepted_now(definition: Definition) -> Pin:
    """A definition, accepted at this moment."""
    return Pin(definition.digest, datetime.now(UTC).replace(microsecond=0), definition)


def _is_whole(pin: Pin) -> bool:
    try:
        return pin.definition.digest == pin.digest
    except ValueError:  # a number that has no canonical form: no digest was ever made of it
        return False
