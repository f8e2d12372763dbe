"""slack.yaml: workspaces, whose secrets are named and never written."""

from pathlib import Path

import pytest

from holdfast.config.slack_yaml import load_slack
from holdfast.domain.errors import ConfigurationError

FILE = """\
version: 1
workspaces:
  T1:
    tenant: acme
    agent: support
    channels: {C1: billing}
    bot_token: os.environ/ACME_TOKEN
    signing_secret: os.environ/ACME_SECRET
  T2:
    tenant: other
    agent: support
    bot_token: os.environ/OTHER_TOKEN
    signing_secret: os.environ/OTHER_SECRET
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "slack.yaml"
    path.write_text(text)
    return path


def test_workspaces_have_a_tenant_and_agents_and_the_worker_no_secret(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    environ = {"ACME_TOKEN": "xoxb-hunter2", "ACME_SECRET": "hunter3", "OTHER_SECRET": "hunter4"}
    (app,), (warning,) = (lambda file: (file.apps, file.warnings))(load_slack(path, environ, signs=True))
    assert (app.workspace.tenant_id, app.agent_in("C1"), app.agent_in("C2")) == ("acme", "billing", "support")
    assert (app.signing_secret, "hunter" in repr(app)) == ("hunter3", False)
    assert warning == f"{path}: the workspace T2 is left out: OTHER_TOKEN is not set"

    (app,) = load_slack(path, {"ACME_TOKEN": "xoxb-hunter2", "ACME_SECRET": "hunter3"}, signs=False).apps
    assert app.signing_secret == ""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ("os.environ/ACME_SECRET", "hunter2"),
            "8: workspaces.T1.signing_secret: names no variable",
        ),
        (("tenant: acme", "tenant: Acme"), "4: workspaces.T1.tenant: is not a tenant's name"),
        (("  T1:", "  acme:"), "3: workspaces.acme: is not a workspace's id, such as T0123ABCD"),
        (("agent: support", "agents: support"), "workspaces.T1.agent: is missing"),
        (
            ("ACME_SECRET", "NOT_SET"),
            "8: workspaces.T1.signing_secret: NOT_SET is not set; set it to",
        ),
    ],
)
def test_a_mistake_is_told_by_its_line_and_never_by_a_secret(
    tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    path = written(tmp_path, FILE.replace(*change, 1))
    with pytest.raises(ConfigurationError) as raised:
        load_slack(path, {"ACME_TOKEN": "xoxb-1", "ACME_SECRET": "s"}, signs=True)
    assert complaint in str(raised.value)
    assert "hunter2" not in str(raised.value)
