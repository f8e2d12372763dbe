"""Who may do what: one table, from which `docs/permissions.md` is made. What it does not say is not allowed.

A key or a token carries names of roles; those that stand here give permissions. Any other name (`finance`) gives none:
it is what a policy's `approvers` ask for, beside the permission to decide.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum, StrEnum

from holdfast.domain.errors import InvalidInput


class Role(StrEnum):
    """What somebody is here for."""

    CLIENT = "client"  #: talks to agents, and sees what came of it
    APPROVER = "approver"  #: decides confirmations and settles unknown outcomes
    OPERATOR = "operator"  #: sees and stops everybody's runs
    ADMIN = "admin"  #: agents, keys, budgets, switches
    AUDITOR = "auditor"  #: reads everything, changes nothing


class Reach(IntEnum):
    """Whose things a permission is about; each includes the one before."""

    OWN = 1  #: what came of the caller's own messages
    ASKED = 2  #: also what a person was asked about
    TENANT = 3  #: everybody's of the tenant


class Permission(StrEnum):
    """One kind of thing to do. A route names the one it needs in its signature."""

    MESSAGES_SEND = "messages.send"
    CONVERSATIONS_READ = "conversations.read"
    RUNS_READ = "runs.read"
    RUNS_CANCEL = "runs.cancel"
    CONFIRMATIONS_READ = "confirmations.read"
    CONFIRMATIONS_DECIDE = "confirmations.decide"
    TOOL_CALLS_READ = "tool_calls.read"
    TOOL_CALLS_RESOLVE = "tool_calls.resolve"
    AGENTS_READ = "agents.read"
    AGENTS_WRITE = "agents.write"
    BUDGET_READ = "budget.read"
    BUDGET_WRITE = "budget.write"
    MODELS_USE = "models.use"
    AUDIT_READ = "audit.read"
    KEYS_READ = "keys.read"
    KEYS_MANAGE = "keys.manage"
    SWITCHES_READ = "switches.read"
    SWITCHES_USE = "switches.use"
    CODEC_DECODE = "codec.decode"
    PROVIDER_KEYS_READ = "provider_keys.read"
    PROVIDER_KEYS_MANAGE = "provider_keys.manage"
    WEBHOOKS_READ = "webhooks.read"
    WEBHOOKS_MANAGE = "webhooks.manage"

    @property
    def sentence(self) -> str:
        """What it lets one do."""
        return _SENTENCES[self]


_SENTENCES: Mapping[Permission, str] = {
    Permission.MESSAGES_SEND: "Send a message to an agent: into a new conversation, or into one that is within reach.",
    Permission.CONVERSATIONS_READ: "Read transcripts.",
    Permission.RUNS_READ: "Read runs: state, steps, tool calls, cost, reply.",
    Permission.RUNS_CANCEL: "Stop a run.",
    Permission.CONFIRMATIONS_READ: "Read confirmations, with the arguments that wait for a person.",
    Permission.CONFIRMATIONS_DECIDE: "Decide confirmations, as far as their policy lets one.",
    Permission.TOOL_CALLS_READ: "Read tool calls.",
    Permission.TOOL_CALLS_RESOLVE: "Say what became of a call whose outcome is unknown.",
    Permission.AGENTS_READ: "Read agents, with their prompts and policies.",
    Permission.AGENTS_WRITE: "Apply agents.",
    Permission.BUDGET_READ: "Read the budget and what is spent of it.",
    Permission.BUDGET_WRITE: "Set the budget.",
    Permission.MODELS_USE: "Ask models by alias, without an agent.",
    Permission.AUDIT_READ: "Read the audit log.",
    Permission.KEYS_READ: "List keys, never their secrets, and identities.",
    Permission.KEYS_MANAGE: "Make and revoke keys with any role of the tenant; link identities to principals.",
    Permission.SWITCHES_READ: "See what is switched off.",
    Permission.SWITCHES_USE: "Switch an agent or the tenant off and on.",
    Permission.CODEC_DECODE: "Have the Temporal UI show encrypted payloads.",
    Permission.PROVIDER_KEYS_READ: "See for which providers the tenant has keys of its own.",
    Permission.PROVIDER_KEYS_MANAGE: "Set and remove the tenant's own keys of model providers.",
    Permission.WEBHOOKS_READ: "See webhooks, never their secrets, and what was told to them.",
    Permission.WEBHOOKS_MANAGE: "Make, change and delete webhooks; tell them again.",
}


def _at(reach: Reach, *permissions: Permission) -> dict[Permission, Reach]:
    return dict.fromkeys(permissions, reach)


#: The table.
PERMISSIONS: Mapping[Role, Mapping[Permission, Reach]] = {
    Role.CLIENT: {
        **_at(
            Reach.OWN,
            Permission.MESSAGES_SEND,
            Permission.CONVERSATIONS_READ,
            Permission.RUNS_READ,
            Permission.RUNS_CANCEL,
            Permission.CONFIRMATIONS_READ,
            Permission.TOOL_CALLS_READ,
        ),
        **_at(Reach.TENANT, Permission.MODELS_USE),
    },
    Role.APPROVER: {
        **_at(Reach.ASKED, Permission.RUNS_READ),
        **_at(
            Reach.TENANT,
            Permission.CONFIRMATIONS_READ,
            Permission.CONFIRMATIONS_DECIDE,
            # Also calls of which nobody was asked: those that a cancelled run has left in doubt.
            Permission.TOOL_CALLS_READ,
            Permission.TOOL_CALLS_RESOLVE,
            Permission.BUDGET_READ,
        ),
    },
    Role.OPERATOR: _at(
        Reach.TENANT,
        Permission.MESSAGES_SEND,
        Permission.CONVERSATIONS_READ,
        Permission.RUNS_READ,
        Permission.RUNS_CANCEL,
        Permission.CONFIRMATIONS_READ,
        Permission.TOOL_CALLS_READ,
        Permission.AGENTS_READ,
        Permission.BUDGET_READ,
        Permission.SWITCHES_READ,
        Permission.SWITCHES_USE,
        Permission.CODEC_DECODE,
    ),
    Role.ADMIN: _at(
        Reach.TENANT,
        Permission.AGENTS_READ,
        Permission.AGENTS_WRITE,
        Permission.BUDGET_READ,
        Permission.BUDGET_WRITE,
        Permission.AUDIT_READ,
        Permission.KEYS_READ,
        Permission.KEYS_MANAGE,
        Permission.SWITCHES_READ,
        Permission.SWITCHES_USE,
        Permission.PROVIDER_KEYS_READ,
        Permission.PROVIDER_KEYS_MANAGE,
        Permission.WEBHOOKS_READ,
        Permission.WEBHOOKS_MANAGE,
    ),
    Role.AUDITOR: _at(
        Reach.TENANT,
        Permission.CONVERSATIONS_READ,
        Permission.RUNS_READ,
        Permission.CONFIRMATIONS_READ,
        Permission.TOOL_CALLS_READ,
        Permission.AGENTS_READ,
        Permission.BUDGET_READ,
        Permission.AUDIT_READ,
        Permission.KEYS_READ,
        Permission.SWITCHES_READ,
        Permission.PROVIDER_KEYS_READ,
        Permission.WEBHOOKS_READ,
    ),
}


#: What a key gets that is made with none of the roles above.
DEFAULT_ROLES = (Role.CLIENT, Role.APPROVER)


def with_default_roles(roles: Collection[str]) -> list[str]:
    """The roles of a new key: those asked for, and, where none of them gives any permission, `DEFAULT_ROLES`.

    Raises:
        InvalidInput: none does, and one is a role misspelt, it seems, which would give others than were meant.
    """
    if set(roles) & set(Role):
        return sorted(set(roles))
    for role in roles:
        if meant := get_close_matches(role, list(Role), n=1, cutoff=0.8):
            raise InvalidInput(
                "roles", f"{role!r} gives no permission; did you mean {str(meant[0])!r}? If not, name such a role too."
            )
    return sorted({*roles, *DEFAULT_ROLES})


def reach(roles: Collection[str], permission: Permission) -> Reach | None:
    """How far somebody with these roles may do a thing; None: not at all."""
    return max((PERMISSIONS[role][permission] for role in Role if _gives(role, roles, permission)), default=None)


def roles_giving(permission: Permission) -> list[str]:
    """The roles of which one is needed to do a thing."""
    return [role for role in Role if permission in PERMISSIONS[role]]


def _gives(role: Role, roles: Collection[str], permission: Permission) -> bool:
    return role in roles and permission in PERMISSIONS[role]


@dataclass(frozen=True)
class View:
    """Whose things are seen: those that one of the `names` has sent, with `asked` also those that a person was asked
    about; `names` None: everybody's of the tenant."""

    names: tuple[str, ...] | None
    asked: bool = False


#: What the parts of Holdfast see, who ask for nobody.
WHOLE_TENANT = View(None)


@dataclass(frozen=True)
class Caller:
    """Who makes a request: tenant, principal and roles are the key's or the token's, never the body's.

    `person` is the principal's name; `names` are all under which it was ever known (see `identities`). `key_id` is the
    key's; None: it came with a token, or another way. `has_token`: the roles are a token's, and known from it alone.
    """

    tenant_id: str
    person: str
    roles: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    key_id: str | None = None
    has_token: bool = False

    def may(self, permission: Permission) -> bool:
        """Whether the table lets the caller do a thing at all."""
        return reach(self.roles, permission) is not None

    def is_one_of(self, *names: str) -> bool:
        """Whether one of these names is the caller's."""
        return bool(self._names.intersection(names))

    def includes(self, before: "Caller") -> bool:
        """Whether this is who it was before, with nothing taken from them since."""
        is_same = self.tenant_id == before.tenant_id and self._names >= before._names
        return is_same and self.roles >= before.roles

    def view(self, permission: Permission) -> View:
        """Whose things the caller may do a thing with; without the permission, nobody's."""
        found = reach(self.roles, permission)
        if found is Reach.TENANT:
            return View(None)
        return View(tuple(sorted(self._names)) if found else (), asked=found is Reach.ASKED)

    @property
    def _names(self) -> frozenset[str]:
        return self.names | {self.person}
