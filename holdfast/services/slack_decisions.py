"""Decisions in Slack: a button or a modal, pressed by a person, on the arguments that it stood beside.

The button carries the confirmation's id and the digest of what was shown. It is a claim like any other: who presses is
looked up, and all that `Confirmations.decide` checks is checked.
"""

from holdfast.channels import slack_cards
from holdfast.domain.confirmations import Confirmation, Decision
from holdfast.domain.errors import HoldfastError, PermissionMissing, Unavailable
from holdfast.domain.permissions import Caller, Permission
from holdfast.domain.principals import IdentityKind
from holdfast.domain.slack import Pressed, SlackUser, Workspace
from holdfast.services.confirmations import Confirmations, Decided
from holdfast.services.principals import Principals
from holdfast.services.refusals import Asked, recording_refusals
from holdfast.services.slack_messages import lacking, stranger
from holdfast.services.slack_notices import SlackNotices
from holdfast.store.engine import Database

_VIA = "slack"


class SlackDecisions:
    """Decides, and opens the modals that belong to it. Refusals are told to whoever pressed, and to nobody else."""

    def __init__(
        self, database: Database, confirmations: Confirmations, principals: Principals, notices: SlackNotices
    ) -> None:
        self._database = database
        self._confirmations = confirmations
        self._principals = principals
        self._notices = notices

    async def approve(self, workspace: Workspace, pressed: Pressed) -> None:
        """The button of a card: approve what it shows.

        Raises:
            Unavailable: the database does not answer; nothing was decided.
        """
        refusal = await self._refusal(workspace, pressed, Decision.APPROVE)
        if refusal is not None:
            self._notices.tell(workspace, pressed.place, pressed.user.user_id, refusal)

    async def sent(self, workspace: Workspace, pressed: Pressed, decision: Decision) -> str | None:
        """A modal that was sent: decide. Answers with why not, if not.

        Raises:
            Unavailable: the database does not answer; nothing was decided.
        """
        return await self._refusal(workspace, pressed, decision)

    def ask_reason(self, workspace: Workspace, pressed: Pressed) -> None:
        """Open the modal that asks why a call is rejected."""
        self._notices.open(workspace, pressed.trigger_id, slack_cards.reason_modal(pressed.value))

    async def review(self, workspace: Workspace, pressed: Pressed) -> None:
        """Open the modal that shows all arguments, to whoever may decide.

        Raises:
            Unavailable: the database does not answer.
        """
        confirmation_id, _ = slack_cards.read_bound(pressed.value)
        found = await self._shown(workspace, pressed, confirmation_id)
        if isinstance(found, str):
            self._notices.tell(workspace, pressed.place, pressed.user.user_id, found)
        else:
            self._notices.open(workspace, pressed.trigger_id, slack_cards.review_modal(found))

    async def _shown(self, workspace: Workspace, pressed: Pressed, confirmation_id: str) -> Confirmation | str:
        caller = await self._caller(workspace, pressed.user)
        if caller is None:
            return stranger(pressed.user)
        if not caller.may(Permission.CONFIRMATIONS_DECIDE):
            return lacking(Permission.CONFIRMATIONS_DECIDE)
        try:
            return await self._confirmations.get(caller, confirmation_id)
        except Unavailable:
            raise
        except HoldfastError as error:
            return str(error)

    async def _refusal(self, workspace: Workspace, pressed: Pressed, decision: Decision) -> str | None:
        caller = await self._caller(workspace, pressed.user)
        if caller is None:
            return stranger(pressed.user)
        confirmation_id, digest = slack_cards.read_bound(pressed.value)
        try:
            await self._check_permission(caller, decision, confirmation_id)
            decided = Decided(decision, digest, pressed.reason or None, via=_VIA)
            await self._confirmations.decide(caller, confirmation_id, decided)
        except Unavailable:
            raise
        except HoldfastError as error:
            return str(error)
        return None

    async def _caller(self, workspace: Workspace, user: SlackUser) -> Caller | None:
        return await self._principals.account(workspace.tenant_id, IdentityKind.SLACK, user.subject)

    async def _check_permission(self, caller: Caller, decision: Decision, confirmation_id: str) -> None:
        if caller.may(Permission.CONFIRMATIONS_DECIDE):
            return
        asked = Asked(decision, confirmation_id, via=_VIA)
        async with recording_refusals(self._database, caller, asked):
            raise PermissionMissing(lacking(Permission.CONFIRMATIONS_DECIDE))
