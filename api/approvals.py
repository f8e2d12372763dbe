"""By which id chat clients answer a question: it names the confirmation, and the arguments that were shown."""

import re

from holdfast.domain.errors import NotFound

_FORM = re.compile(r"(?P<confirmation>conf_[0-9A-Z]{26})\.(?P<digest>[0-9a-f]{64})")


def named(answered_by: str) -> tuple[str, str]:
    """The confirmation and the digest that an id says.

    Raises:
        NotFound: it is none that a question has.
    """
    found = _FORM.fullmatch(answered_by)
    if found is None:
        raise NotFound("confirmation", answered_by)
    return found["confirmation"], found["digest"]
