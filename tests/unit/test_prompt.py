"""The system prompt says what the configuration says, and that the agent is an AI, whatever the configuration says."""

from hypothesis import given

from holdfast.domain.agents import AgentSpec, Identity
from holdfast.llm.prompt import TRANSPARENCY, assemble
from tests.unit.builders import agent, agents


@given(agents())
def test_the_transparency_clause_is_always_last_and_there_once(anyone: AgentSpec) -> None:
    prompt = assemble(anyone)
    assert prompt == TRANSPARENCY or prompt.endswith(f"\n\n{TRANSPARENCY}")
    assert prompt.count(TRANSPARENCY) == 1


@given(agents())
def test_the_parts_stand_in_order(anyone: AgentSpec) -> None:
    identity = anyone.identity
    wanted = [anyone.system_prompt.strip(), identity.name if identity else "", anyone.persona.strip(), TRANSPARENCY]
    prompt, position = assemble(anyone), 0
    for part in filter(None, wanted):
        position = prompt.index(part, position) + len(part)


def test_a_whole_prompt() -> None:
    mira = agent(
        system_prompt="Help with orders.\n",
        identity=Identity(name="Mira", role="Support agent"),
        persona="Warm, brief, exact.",
    )
    assert assemble(mira) == (
        "Help with orders.\n\n"
        "Your name is Mira. Your role: Support agent.\n\n"
        "Your manner: Warm, brief, exact.\n\n" + TRANSPARENCY
    )


def test_an_agent_that_says_nothing_of_itself_says_that_it_is_an_ai() -> None:
    assert assemble(agent(system_prompt="  \n", persona=" ")) == TRANSPARENCY
    assert "AI" in TRANSPARENCY
