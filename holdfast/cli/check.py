"""`holdfast check`: is the configuration right? Nothing is started, nothing connected."""

import os
import sys
from pathlib import Path

import typer

from holdfast.cli.agents_file import AgentsArgument, agents_file


def check(agents: AgentsArgument = None) -> None:
    """Validate every configuration file, naming file, line, key and mend."""
    from holdfast.config import agents_yaml
    from holdfast.config.mcp_json import load_mcp
    from holdfast.config.mcp_lock import lock_path, read_lock
    from holdfast.config.models_yaml import load_models
    from holdfast.config.settings import sealing_warnings
    from holdfast.domain.mcp import tool_prefix
    from holdfast.tools.functions import tools_of_modules
    from holdfast.tools.http import http_request_tool
    from holdfast.tools.registry import ToolRegistry

    # A user's tools are found where the user stands, as they are by the worker.
    sys.path.insert(0, str(Path.cwd()))
    file = agents_yaml.load_agents(agents_file(agents))
    # The variable that `holdfast dev` would set, so that a file which has the demo model can be checked without it.
    models = load_models(
        file.models_path, {"HOLDFAST_DEMO_MODEL_URL": "http://127.0.0.1", **os.environ}, allow_demo=True
    )
    agents_yaml.check_aliases(file, models.aliases, models.unusable)
    own_tools = tools_of_modules(file.tool_modules)
    tools = ToolRegistry([*own_tools, http_request_tool()])
    agents_yaml.check_tools(file, tools.described)
    mcp = None if file.mcp_path is None else load_mcp(file.mcp_path, os.environ)
    if mcp is not None:
        read_lock(lock_path(mcp.path))
    servers = [] if mcp is None else [server.name for server in mcp.servers]
    about_rules = agents_yaml.warnings(file, tools.described, map(tool_prefix, servers))
    if os.environ.get("HOLDFAST_ENVIRONMENT") == "production":
        sealed = [os.environ.get(name) for name in ("HOLDFAST_PAYLOAD_KEYS", "HOLDFAST_PAYLOAD_KEYS_FILE")]
        for warning in sealing_warnings(is_sealing=any(sealed)):
            typer.echo(f"warning: {warning}")
    for left_out in models.left_out:
        typer.echo(f"note: {models.path}:{left_out.line}: {left_out.model} is left out: {left_out.variable} is not set")
    for warning in (*models.warnings, *(() if mcp is None else mcp.warnings), *about_rules):
        typer.echo(f"warning: {warning}")
    agents_found = ", ".join(agent.name for agent in file.agents)
    servers_found = f"MCP servers: {', '.join(servers)}; " if servers else ""
    typer.echo(
        f"{file.path}: good (agents: {agents_found}; tools: {', '.join(tool.name for tool in own_tools) or 'none'}; "
        f"{servers_found}"
        f"aliases: {', '.join(models.aliases)})"
    )
