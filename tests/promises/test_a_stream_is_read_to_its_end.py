"""What is streamed survives the worker that streams: another takes it back, and begins anew."""

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text
from tests.conftest import new_tenant
from tests.harness.processes import KillableStage
from tests.harness.reading import is_gapless, read, shown, types, whole_log


async def test_the_worker_is_killed_in_the_middle_of_a_text(
    killable: KillableStage, provider: ScriptedProvider
) -> None:
    ada = await killable.stage.caller(new_tenant())
    await killable.worker.start()
    provider.script(Stalls(Text("One two three four."), after=4), Text("All of it, again."))
    run_id = await ada.start("count")
    reading = read(ada, run_id)
    log = [await anext(reading) for _ in range(3)]

    killable.worker.kill()
    await killable.worker.start()
    log += [told async for told in reading]

    assert types(log) == [
        "run.queued",
        "run.started",
        "message.delta",
        "message.reset",
        "message.delta",
        "message.completed",
        "run.completed",
    ]
    assert is_gapless(log)
    assert shown(log[:3]) in "One two three four."
    assert shown(log) == "All of it, again." == (await ada.run(run_id))["reply"]
    assert log == await whole_log(ada, run_id)
