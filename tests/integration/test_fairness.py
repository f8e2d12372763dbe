"""`holdfast doctor` tells a server that serves tenants in turn from one that does not."""

from pathlib import Path

import pytest

from holdfast.dev import temporal
from holdfast.dev.ports import free_port
from holdfast.dev.temporal import Temporal
from holdfast.temporal.client import connect
from holdfast.temporal.fairness import is_fair
from tests.harness.stage import Stage


async def test_the_server_of_dev_serves_tenants_in_turn(stage: Stage) -> None:
    assert await is_fair(stage.temporal)


async def test_a_server_without_the_flag_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = tuple(setting for setting in temporal._DYNAMIC_CONFIG if "Fairness" not in setting)
    assert len(without) == len(temporal._DYNAMIC_CONFIG) - 1
    monkeypatch.setattr(temporal, "_DYNAMIC_CONFIG", without)
    server = Temporal(tmp_path / "temporal.sqlite", tmp_path / "temporal.log", port=free_port(), ui_port=None)
    await server.start()
    try:
        monkeypatch.setenv("TEMPORAL_ADDRESS", server.address)
        assert not await is_fair(await connect())
    finally:
        server.stop()
