"""What the documentation says of the code is so."""

import json
import re
import subprocess
import sys
from pathlib import Path

from api import permissions_page
from holdfast.config.agents_shape import json_schema

ROOT = Path(__file__).parents[2]


def test_the_schema_for_editors_is_the_one_that_is_enforced() -> None:
    kept = ROOT / "docs" / "agents.schema.json"
    schema = json_schema()

    assert json.loads(kept.read_text()) == schema, (
        "docs/agents.schema.json is out of date; write what json_schema() of holdfast/config/agents_shape.py returns"
    )


def test_the_page_of_permissions_is_the_table_that_is_enforced() -> None:
    assert permissions_page.PAGE.read_text() == permissions_page.page(), "docs/permissions.md: run `make permissions`"


def test_every_path_that_the_documents_name_exists() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        path
        for document in documents
        for path in re.findall(
            r"[`(]((?:holdfast|workflows|activities|worker|api|tests|docs|examples)/[\w./-]+)[`)]", document.read_text()
        )
    }

    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_tool_and_the_agent_of_the_readme_work(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (tool,) = re.findall(r"```python\n# shop/tools.py\n(.*?)```", readme, re.DOTALL)
    (agents,) = re.findall(r"```yaml\n# agents.yaml\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "tools.py").write_text(tool)
    (tmp_path / "agents.yaml").write_text(agents)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    checked = subprocess.run(
        [str(Path(sys.executable).parent / "holdfast"), "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
    assert "good (agents: desk; tools: cancel_order; aliases: quality, fast, judge)" in checked.stdout
