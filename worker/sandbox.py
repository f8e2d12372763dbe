"""The workflow sandbox: what is passed through it, and why.

Each run imports its workflow's modules afresh, which costs milliseconds of CPU. What is passed through is imported
once:
our data types and stubs, which hold no state, and pydantic, which is the same for all. Everything else that a workflow
came to import by mistake raises, instead of slowing each run down unseen.
"""

from temporalio import workflow
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

_PASSED_THROUGH = (
    "holdfast.domain",
    "workflows.stubs",
    "workflows.names",
    "workflows.confirmation",
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "ulid",
    "rfc8785",
)


def sandboxed_runner() -> SandboxedWorkflowRunner:
    """The runner of the worker and of the replay tests alike."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*_PASSED_THROUGH)
    return SandboxedWorkflowRunner(
        restrictions=restrictions.with_import_notification_policy(
            workflow.SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
            | workflow.SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
        )
    )
