"""Every error that Holdfast raises on purpose.

    HoldfastError
    ├── InvalidInput             the caller's fault, says which field
    │   └── IdempotencyMismatch  the same key came with another body
    ├── Unauthenticated          no key and no token
    │   └── CredentialRefused    one that is not known, or not valid (any more)
    ├── Forbidden                known, but may not do this
    │   └── PermissionMissing    since no role of theirs gives the permission
    ├── NotFound                 unknown, or another tenant's: nobody can tell which
    ├── Gone                     it was there, and is not kept any more
    ├── Conflict                 the state no longer allows it
    ├── DigestMismatch           the arguments shown are not the arguments stored
    ├── BudgetExceeded           the tenant's budget has no room for a model call
    ├── TooManyRequests          more than the caller may have at a time, or in a minute; try again later
    ├── Stopped                  a kill switch is thrown
    ├── Unavailable              a part we depend on does not answer; try again
    ├── ConfigurationError       a file or variable is wrong; says where and how to mend it
    └── ModelError
        ├── ModelsUnavailable    no deployment of the alias answered; trying again may help
        ├── ModelRequestRefused  the provider refuses the request itself; trying again can't help
        │   └── ModelMisconfigured  it refuses our key, or does not know the model
        └── NoValidAnswer        the model answered, again and again with something that does not fit the schema

`api/problems.py` maps them to status codes, and is the only place that does.
"""

from datetime import timedelta


class HoldfastError(Exception):
    """Base of all of them; its text is fit to be shown to the caller."""


class InvalidInput(HoldfastError):
    """What the caller sent can't be taken. `field` names the part, as a path: `text`, `metadata.source`."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field


class IdempotencyMismatch(InvalidInput):
    """An idempotency key was used before, with another body."""


class Unauthenticated(HoldfastError):
    """The request says nothing of who makes it."""


class CredentialRefused(Unauthenticated):
    """The request carries a key or a token that is not known, or is not valid (any more)."""


class Forbidden(HoldfastError):
    """The caller is known, and may not do this: a role is missing, or it is their own request."""


class PermissionMissing(Forbidden):
    """No role of the caller gives the permission that the route needs."""


class NotFound(HoldfastError):
    """There is no such thing in the caller's tenant. Raised alike for unknown ids and for another tenant's."""

    def __init__(self, what: str, identifier: str) -> None:
        super().__init__(f"There is no {what} {identifier!r}.")


class Gone(HoldfastError):
    """It was there once, and is not kept any more."""


class Conflict(HoldfastError):
    """The thing exists, but its state does not allow this any more."""


class DigestMismatch(HoldfastError):
    """The digest sent with a decision is not the digest of the arguments that would run."""


class BudgetExceeded(HoldfastError):
    """The tenant's budget has no room for what a model call may cost; the call was not made."""


class TooManyRequests(HoldfastError):
    """The caller has more requests than it may, in a minute or at a time. `retry_after`: when there is room again."""

    def __init__(self, detail: str, retry_after: timedelta) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Stopped(HoldfastError):
    """A person has thrown the kill switch for this agent, this tenant, or everything. Nothing was stored."""


class Unavailable(HoldfastError):
    """A part that Holdfast depends on (named in the text) does not answer."""


class ConfigurationError(HoldfastError):
    """A configuration file or variable is wrong; the text names the place and the mend, on one line."""


class ModelError(HoldfastError):
    """A model call brought no answer. The text names causes, never keys, prompts or replies."""


class ModelsUnavailable(ModelError):
    """No deployment of the alias answered. `retry_after`: how long the provider asked us to wait, if it said."""

    def __init__(self, detail: str, retry_after: timedelta | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ModelRequestRefused(ModelError):
    """The provider refuses the request (bad request, too long, content policy): the same again can't succeed."""


class ModelMisconfigured(ModelRequestRefused):
    """The provider refuses our key, or does not know the model: models.yaml or a variable must be mended."""


class NoValidAnswer(ModelError):
    """The model's last answer does not fit the schema either. `errors`: what is wrong with it, by JSON path."""

    def __init__(self, detail: str, errors: list[tuple[str, str]]) -> None:
        super().__init__(detail)
        self.errors = errors
