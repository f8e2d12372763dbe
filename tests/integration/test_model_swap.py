"""Which model stands behind an alias is one line of models.yaml, and a run in flight does not mind its change."""

import shutil
import uuid
from pathlib import Path

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.conftest import new_tenant
from tests.harness.processes import playing_with_a_killable_worker
from tests.harness.servers import Servers
from tests.harness.stage import AGENTS


async def test_a_model_is_swapped_in_one_line_while_a_run_waits(
    running_servers: Servers, provider: ScriptedProvider, tmp_path: Path
) -> None:
    for name in ("agents.yaml", "models.yaml"):
        shutil.copy(AGENTS.with_name(name), tmp_path)
    models = tmp_path / "models.yaml"
    provider.script(ToolCalls([("pay", {"marker": "swap", "amount": 1})]), Text("Paid."))
    stage_name = f"swap-{uuid.uuid4().hex[:12]}"

    async with playing_with_a_killable_worker(running_servers, provider, stage_name, tmp_path / "log") as killable:
        killable.worker.environment["HOLDFAST_AGENTS"] = str(tmp_path / "agents.yaml")
        await killable.worker.start()
        ada = await killable.stage.caller(new_tenant())
        run = await ada.ask("pay")
        confirmation = await ada.only_pending(run)

        before = models.read_text().splitlines()
        models.write_text(models.read_text().replace("openai/scripted-quality", "openai/swapped-in"))
        assert len([line for line in models.read_text().splitlines() if line not in before]) == 1
        killable.worker.kill()
        await killable.worker.start()

        await ada.decide(confirmation)
        ended = await ada.ended(run["id"])
        later = await ada.ask("hello again")

    assert ended["reply"] == "Paid."
    assert [step["model"] for step in ended["steps"]] == ["scripted-quality", "swapped-in"]
    assert {step["alias"] for step in (*ended["steps"], *later["steps"])} == {"quality"}
    assert [request.model for request in provider.requests] == ["scripted-quality", "swapped-in", "swapped-in"]
