"""Open runs survive a new version: every kind of history that was recorded replays on the workflow as it is now.

After a change to a workflow, `make histories` records new ones. Run the tests before you do: a history that does not
replay any more means that runs which are open while you deploy would stop. `workflow.patched` keeps both ways.
"""

import ast
import hashlib
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from holdfast.domain.steps import Ending, Finish, MessageInput, ModelStep, RunRef
from holdfast.temporal.converter import data_converter
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import KEYRING, Stage
from tests.replay.scenarios import SCENARIOS
from tests.unit.http_servers import http, serving
from worker.sandbox import sandboxed_runner
from workflows import names, stubs
from workflows.delivery import DeliveryWorkflow
from workflows.message import MessageWorkflow

HISTORIES = Path(__file__).parents[1] / "histories"
FINGERPRINT = HISTORIES / "fingerprint"
WORKFLOWS = Path(__file__).parents[2] / "workflows"


def replayer(kind: type = MessageWorkflow) -> Replayer:
    """As the worker runs workflows."""
    return Replayer(workflows=[kind], workflow_runner=sandboxed_runner(), data_converter=data_converter(KEYRING))


def recorded(scenario: str) -> WorkflowHistory:
    """The history that was recorded of a kind of run."""
    return WorkflowHistory.from_json(f"recorded:{scenario}", (HISTORIES / f"{scenario}.json").read_text())


def fingerprint() -> str:
    """Changes when the workflows do; their comments, docstrings and layout don't count."""
    digest = hashlib.sha256()
    for path in sorted(WORKFLOWS.glob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                has_docstring = ast.get_docstring(node, clean=False) is not None
                node.body = node.body[1:] if has_docstring else node.body
        digest.update(path.name.encode() + ast.dump(tree).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_run_replays_as_soon_as_it_has_ended(
    ada: Caller, stage: Stage, request: pytest.FixtureRequest, scenario: str
) -> None:
    run = await SCENARIOS[scenario](ada, stage)
    handle = stage.temporal.get_workflow_handle(f"{ada.tenant_id}:{run['agent']}:{run['message_id']}")
    await handle.result()
    history = await handle.fetch_history()
    if request.config.getoption("--record-histories"):
        HISTORIES.mkdir(exist_ok=True)
        (HISTORIES / f"{scenario}.json").write_text(history.to_json())
        FINGERPRINT.write_text(fingerprint() + "\n")

    await replayer().replay_workflow(history)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_what_was_recorded_replays_today(scenario: str) -> None:
    await replayer().replay_workflow(recorded(scenario))


async def test_a_delivery_replays_as_soon_as_it_is_settled(
    ada: Caller, stage: Stage, request: pytest.FixtureRequest
) -> None:
    async with serving(http(500), http(204)) as receiver:
        await ada.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["run.completed"]})
        await ada.ask("hello")
        await until(lambda: len(receiver.requests) == 2)
        handle = stage.temporal.get_workflow_handle(
            f"{ada.tenant_id}:webhook:{receiver.requests[0].headers['webhook-id']}"
        )
        assert await handle.result() == "delivered"
    history = await handle.fetch_history()
    if request.config.getoption("--record-histories"):
        (HISTORIES / "delivered.json").write_text(history.to_json())

    assert len(history.events) < 15, "attempts leave no events"
    await replayer(DeliveryWorkflow).replay_workflow(history)


async def test_a_delivery_that_was_recorded_replays_today() -> None:
    await replayer(DeliveryWorkflow).replay_workflow(recorded("delivered"))


def test_a_changed_workflow_brings_its_histories() -> None:
    assert FINGERPRINT.read_text().strip() == fingerprint(), (
        "workflows/ has changed since the histories were recorded. If the test above is green, open runs survive the "
        "change: run `make histories` and commit what it records."
    )


@workflow.defn(name=names.WORKFLOW, sandboxed=False)
class ChangedWorkflow:
    """What a careless change would make of it: the model is asked before the turn is taken."""

    @workflow.run
    async def run(self, message: MessageInput) -> str:
        await stubs.call_model(ModelStep(message.tenant_id, message.run_id, 1), "quality")
        await stubs.begin_turn(RunRef(message.tenant_id, message.run_id))
        await stubs.finish_turn(Finish(message.tenant_id, message.run_id, Ending.REPLIED, 1))
        return Ending.REPLIED.value


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_changed_workflow_is_caught(scenario: str) -> None:
    with pytest.raises(NondeterminismError):
        await replayer(ChangedWorkflow).replay_workflow(recorded(scenario))
