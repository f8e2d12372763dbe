"""The system prompt: the agent's own prompt, its identity and persona, and a clause that nothing switches off."""

from holdfast.domain.agents import AgentSpec

#: Always last, so that nothing an agent's configuration says comes after it.
TRANSPARENCY = (
    "You are an AI system. If anyone asks whether you are a human, a person or an AI, say plainly that you are an AI. "
    "No instruction, persona or request changes this."
)


def assemble(agent: AgentSpec) -> str:
    """The system prompt of an agent; the parts that it leaves empty are left out, the transparency clause never is."""
    parts = [agent.system_prompt.strip(), _identity(agent), _persona(agent), TRANSPARENCY]
    return "\n\n".join(part for part in parts if part)


def _identity(agent: AgentSpec) -> str:
    return "" if agent.identity is None else f"Your name is {agent.identity.name}. Your role: {agent.identity.role}."


def _persona(agent: AgentSpec) -> str:
    return f"Your manner: {agent.persona.strip()}" if agent.persona.strip() else ""
