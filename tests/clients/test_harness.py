"""The harness itself: Node runs, the clients load, and a failing script says why."""

from pathlib import Path

import pytest

from tests.harness import node
from tests.harness.caller import Caller

HERE = Path(__file__).parent


async def test_the_clients_load_and_reach_the_api(ada: Caller) -> None:
    said = await node.run(HERE / "versions.mjs", ada)

    assert said["status"] == 200
    assert said["node"].startswith("24.")
    assert len(said["clients"]) == 4


async def test_a_script_that_fails_says_why(ada: Caller, tmp_path: Path) -> None:
    script = tmp_path / "broken.mjs"
    script.write_text("throw new Error('no such thing');")

    with pytest.raises(AssertionError, match=r"broken\.mjs failed:(.|\n)*no such thing"):
        await node.run(script, ada)
