"""Promise 2: what can't be repeated safely is never run again by a retry; an unknown outcome is called unknown."""

from pathlib import Path

import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.agents.tools import effects
from tests.conftest import new_tenant
from tests.harness.caller import Json
from tests.harness.conditions import until
from tests.harness.processes import KillableStage

AUDITED = "SELECT outcome FROM audit WHERE tenant_id = $1 AND kind = 'tool_call'"


async def killed_in_the_middle_of(
    tool: str, killable: KillableStage, provider: ScriptedProvider, release: Path
) -> tuple[Json, list[str]]:
    """A run whose worker was killed after the tool's effect, before its result; and what the audit log says of it."""
    ada = await killable.stage.caller(new_tenant())
    await killable.worker.start()
    provider.script(ToolCalls([(tool, {"marker": str(release)})]), Text("Done."))
    run_id = await ada.start("do it")
    await until(lambda: len(effects(tool, str(release))) == 1)

    killable.worker.kill()
    release.touch()
    await killable.worker.start()
    run = await ada.run(run_id)
    for asked in await ada.pending(run):
        await ada.http.post(
            f"/v1/tool-calls/{asked['tool_call_id']}/resolution", json={"outcome": "failed", "evidence": "I looked."}
        )
    run = await ada.ended(run_id)
    return run, [row["outcome"] for row in await killable.stage.rows(AUDITED, ada.tenant_id)]


async def test_a_tool_that_cannot_be_repeated_is_not_repeated_and_a_person_is_asked(
    killable: KillableStage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    run, audited = await killed_in_the_middle_of("send_slowly", killable, provider, tmp_path / "release")

    assert len(effects("send_slowly", str(tmp_path / "release"))) == 1
    assert audited == ["dispatched", "ambiguous", "failed"], "unknown first, and failed only when a person said so"
    assert "did not take effect" in provider.requests[-1].last_text
    assert run["reply"] == "Done."


@pytest.mark.parametrize(("moment", "ran"), [("after", 1), ("-before", 1)])
async def test_a_probe_tells_what_became_of_a_call_whose_worker_died(
    killable: KillableStage, provider: ScriptedProvider, tmp_path: Path, moment: str, ran: int
) -> None:
    """Killed after the effect, the probe proves it, and nothing runs again; killed before, it proves its absence."""
    marker = str(tmp_path / f"release{moment}")
    ada = await killable.stage.caller(new_tenant())
    await killable.worker.start()
    provider.script(ToolCalls([("send_and_tell", {"marker": marker})]), Text("Done."))
    run_id = await ada.start("do it", agent="trusting")
    seen = "send_and_tell" if moment == "after" else "send_and_tell_began"
    await until(lambda: len(effects(seen, marker)) == 1)
    killable.worker.kill()
    Path(marker).touch()
    await killable.worker.start()
    run = await ada.ended(run_id)
    (call,) = run["tool_calls"]

    assert len(effects("send_and_tell", marker)) == ran
    assert call["status"] == "succeeded"
    assert (call["attempts"], call["result"]) == (
        (1, f"found {marker}") if moment == "after" else (2, f"sent {marker}")
    )


async def test_a_keyed_tool_runs_again_with_the_same_key(
    killable: KillableStage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    run, audited = await killed_in_the_middle_of("pay_slowly", killable, provider, tmp_path / "release")

    ran = effects("pay_slowly", str(tmp_path / "release"))
    assert len(ran) == 2
    assert len({effect["key"] for effect in ran}) == 1, "one key, so that whoever is paid counts one payment"
    assert (run["tool_calls"][0]["status"], run["tool_calls"][0]["attempts"]) == ("succeeded", 2)
    assert audited == ["dispatched", "superseded", "dispatched", "succeeded"]


async def test_the_database_goes_away_while_a_tool_runs_and_its_result_is_kept(
    killable: KillableStage, provider: ScriptedProvider, tmp_path: Path
) -> None:
    """Every connection of the application is cut while the tool runs: the effect happened once, and is on record."""
    release = tmp_path / "release"
    ada = await killable.stage.caller(new_tenant())
    await killable.worker.start()
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]), Text("Done."))
    run_id = await ada.start("do it")
    await until(lambda: len(effects("send_slowly", str(release))) == 1)

    cut = await killable.stage.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usename = 'holdfast_app' AND datname = current_database()"
    )
    release.touch()
    run = await ada.ended(run_id)

    assert cut
    assert len(effects("send_slowly", str(release))) == 1
    assert run["tool_calls"][0]["status"] == "succeeded"
    assert run["reply"] == "Done."
