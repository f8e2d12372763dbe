"""Values that several unit tests need."""

from typing import Any

from hypothesis import strategies as st

from holdfast.domain.agents import AgentSpec, Identity, ToolRule

#: Any text that a person, a model or a file can hold: everything but lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]))

#: JSON as every language reads it alike: no floats, no integer beyond 2**53.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(texts, parts, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(texts, json_values, max_size=5)


def agent(*rules: ToolRule, **changes: Any) -> AgentSpec:
    """An agent with these rules."""
    return AgentSpec(**{"name": "support", "model": "quality", "tools": rules, **changes})


def agents() -> st.SearchStrategy[AgentSpec]:
    """Agents of every manner of speaking."""
    names = texts.filter(bool)
    identities = st.none() | st.builds(Identity, name=names, role=names)
    return st.builds(agent, identity=identities, persona=texts, system_prompt=texts)
