"""The secrets that sign webhooks: made here, shown once, kept sealed, opened to sign.

A secret is sealed with the payload keys, and bound to its tenant and its webhook: a row that somebody moves to another
tenant signs nothing.
"""

import base64
import secrets

from holdfast.secrecy.keyring import Keyring
from holdfast.secrecy.redaction import learn_recent
from holdfast.store.webhooks import SealedSecret

_PURPOSE = "webhook secret"
_BYTES = 32


def new_secret() -> str:
    """A secret as Standard Webhooks writes it."""
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(_BYTES)).decode()}"
    learn_recent(secret)
    return secret


def seal(keyring: Keyring, tenant_id: str, webhook_id: str, secret: str) -> SealedSecret:
    """A secret as it is kept."""
    sealed = keyring.seal(secret.encode(), _PURPOSE, tenant_id, webhook_id)
    return SealedSecret(sealed, keyring.sealing_key_id)


def opened(keyring: Keyring, tenant_id: str, webhook_id: str, sealed: SealedSecret) -> str:
    """A secret, to sign with.

    Raises:
        CantOpen: it is another webhook's, or there is no such key.
    """
    secret = keyring.open(sealed.ciphertext, sealed.key_id, _PURPOSE, tenant_id, webhook_id).decode()
    learn_recent(secret)
    return secret
